"""`python -m qwen_image_daemon` is the same as the installed command."""

from qwen_image_daemon.cli.app import main

if __name__ == "__main__":
    main()
