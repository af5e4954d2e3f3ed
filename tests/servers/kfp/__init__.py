"""A Kubeflow Pipelines 2.17 API server on loopback, with state, under a test's control and with faults on demand.

    with kfp.serve() as server:
        server.url                                   # what a client is given
        server.requests                              # each with method, path, query, headers, body and json
        server.unknown                               # what it does not know; serve() fails at its end if any is left
        server.tokens = {"good"}                     # bearer tokens that are accepted; None: no one is asked
        server.gate = "dex"                          # who refuses a token: kfp, istio (401) or dex (to a login page)
        server.namespaces = {"team"}                 # where the user has rights, with multi_user
        server.fail("POST", "/runs$", faults.status(503), times=2)
        server.artifacts["v2/artifacts/..."] = b""   # what GET /artifacts/get finds
        server.address = "ui"                        # api: without artifacts; ui: its own route for logs; or both
        run = server.run(run_id)                     # or a run's display name
        run.start("condition-2/train")               # the step's pod runs; the steps before it have succeeded
        run.log("train", "loss 1.0")                 # the end of a path is enough to name a step
        run.finish("train", succeeded=False)
        run.end("FAILED")
        server.fire(recurring_run_id)                # makes its next run

Nothing moves by time: a run stays PENDING until the test moves it. Answers follow a recording of a real server
(../kfp_rest.jsonl) where there is one, and the API server's own words where there is none.
"""

from servers.kfp import faults
from servers.kfp.calls import Request
from servers.kfp.runs import Run
from servers.kfp.server import Server, serve

__all__ = ["Request", "Run", "Server", "faults", "serve"]
