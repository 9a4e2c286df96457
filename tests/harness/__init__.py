"""What the end-to-end tests, the demo, the SQL regression runner and the benchmark share: a server, a stand-in, a bridge.

Everything here is started for one purpose, listens on loopback or a private socket only, and is ended by its own process
id, after a failure too.
"""
