"""The Tornado service: jobs over HTTP and WebSocket, and a page.

`options` are what an operator decides; `access` says who may do what; `submission` and `uploads` make jobs of requests;
`relay` carries the state of jobs from Redis to the sockets; `handlers` answer requests; `app` puts it together and
`process` runs it, with a queue worker beside it.
"""
