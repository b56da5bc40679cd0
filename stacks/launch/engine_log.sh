engine_key=$(cat "$key_file" 2>/dev/null) || :
print_log_end "$log_lines"
exit 0
