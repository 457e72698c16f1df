"""The command line: modules that parse, call and print. It needs the extra ``cli``."""
