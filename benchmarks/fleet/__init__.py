"""A fleet, simulated: nodes that pull one image through proxies, with virtual time.

Theory of operation
-------------------

Each proxy is the real library: a `Catalog`, a `Session`, a `TieredCache` over a `LayoutCache` on
disk, and `asupplemented.web.asgi_app`. What surrounds it is simulated in this process:

- `clock`: an event loop whose time is virtual. It never waits: if no task can run, its time jumps
  to the next timer. What threads would do is done at once, so that every run has one order.
- `network`: links, each of which shares its rate equally among the transfers that cross it.
- `servers`: two registries on the in-memory transport, a bucket and a Redis.
- `proxies`: machines that run the library, and that can die and be started again.
- `nodes`: clients that pull as containerd does.
- `simulation`: scenarios, and what came of them.
- `report`: tables, plots and ``docs/explanation/fleet.md``.

All chance comes from one seed. The same seed gives the same report.
"""
