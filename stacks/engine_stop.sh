# Never a reason for a release to fail: what this leaves behind goes with the machine.
set +e
stop_engine
rm -f "$key_file" "$script_file"
exit 0
