"""Emojivoto, the mesh community's example application, in Python.

Four programs (`web`, `emoji`, `voting`, `vote-bot`) stand in for the original's images: web serves HTTP and calls
emoji and voting over gRPC (the published emojivoto.v1 services), the bot votes through web, and voting for the
doughnut always fails. `plain-voting` and `plain-emojisvc` are the services of examples/two-services. Ordinary programs
that know nothing of the mesh: run them with `python -m tulle.emojivoto NAME`.
"""
