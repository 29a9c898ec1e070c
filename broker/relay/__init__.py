"""The relay: carries a desktop's screen between a browser's WebSocket and the hypervisor. Plain ASGI."""
