"""The program that serves a catalog: ``asupplemented serve``.

`config` says what is served and how, `toml_file` reads that from a file and names each mistake in
it, `htpasswd` checks passwords, and `clients` prints what clients of the registry have to be told.

`supervisor` runs that: it binds the `sockets`, has one process or several `worker` processes serve
on them, and replaces, reloads and stops them. It speaks with them over a `channel`, tells
`systemd`, and sums their `metrics`. What serves is the `server`, with limits on its `connections`
and an `access_log`.
"""
