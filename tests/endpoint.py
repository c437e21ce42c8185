"""A made-up OpenAI-compatible endpoint on the loopback address."""

import json
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def completion(text):
    """Answer of an endpoint that says `text`."""
    return 200, {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "usage": {
        "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}, "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}]}


def refusal(status):
    """Answer of an endpoint that gives an HTTP error."""
    return status, {"error": {"message": f"status {status}", "type": "server_error"}}


@contextmanager
def endpoints():
    """Function (answers, one a request, the last for all that follow) -> (base_url, requests so far).

    An answer is (status, body), or a function of the request's messages that gives one. A body of bytes is sent as it is; status
    0 sends half of the body and hangs up.
    """
    servers = []

    def serve(*answers):
        asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                answer = answers[min(len(asked), len(answers)) - 1]
                status, body = answer(asked[-1]["messages"]) if callable(answer) else answer
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                with suppress(ConnectionError):  # a client that did not wait is gone
                    self.send_response(status or 200)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(content)))
                    self.send_header("Retry-After-Ms", "1")
                    self.end_headers()
                    self.wfile.write(content if status else content[:len(content) // 2])
                    self.close_connection = not status

            def do_GET(self):
                content = json.dumps({"object": "list", "data": [{"id": name, "object": "model", "created": 1, "owned_by": "us"}
                                                                 for name in serve.models]}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()  # s between looks at its end
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    serve.models = ["m"]
    try:
        yield serve
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
