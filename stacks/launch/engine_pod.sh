# A session of sshd does not have the environment of the image.
if [ -r /proc/1/environ ]; then
  image_path=$(tr '\0' '\n' 2>/dev/null </proc/1/environ | sed -n 's/^PATH=//p' | head -n 1)
  PATH=$PATH${image_path:+:$image_path}
  image_libraries=$(tr '\0' '\n' 2>/dev/null </proc/1/environ | sed -n 's/^LD_LIBRARY_PATH=//p' | head -n 1)
  if [ -z "${LD_LIBRARY_PATH:-}" ] && [ -n "$image_libraries" ]; then export LD_LIBRARY_PATH="$image_libraries"; fi
fi
