"""The program that serves a catalog: ``asupplemented serve``.

`config` says what is served and how, `toml_file` reads that from a file and names each mistake in
it, `htpasswd` checks passwords, and `clients` prints what clients of the registry have to be told.
"""
