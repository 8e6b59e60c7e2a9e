python show.py "from a script" "$@"
