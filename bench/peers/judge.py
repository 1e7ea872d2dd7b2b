#!/usr/bin/env python3
"""A chat endpoint that judges by comparing texts, in the form that `judge_model.prompt = "plain"` asks for: what a model would be asked, and
what it would say, without one. It stands where a served model stands, so that everything around it can be tried on a machine that holds none.

    judge.py PORT

Standard library only. It prints a line once it listens, and on SIGTERM how often it was asked.
"""

import json
import re
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

asked = 0


def plain(text):
    """A text without case, marks and articles."""
    return " ".join(word for word in re.sub(r"[^\w\s]", " ", text.lower()).split() if word not in ("a", "an", "the"))


def verdict(prompt):
    """What is said of the answer in a prompt."""
    data, _ = json.JSONDecoder().raw_decode(prompt[prompt.index("{") :])
    right = {plain(answer) for answer in data["right_answers"]}
    return "VERDICT: CORRECT" if plain(data["answer_to_judge"]) in right else "VERDICT: INCORRECT"


class Judge(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def say(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.say(200, {"object": "list", "data": [{"id": "judge", "object": "model"}]})

    def do_POST(self):
        global asked
        asked += 1
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
        try:
            said = verdict(text)
        except (KeyError, ValueError) as error:
            self.say(400, {"error": {"message": f"no judgement is asked for: {error}"}})
            return
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
        used = {"prompt_tokens": len(text) // 4, "completion_tokens": 6, "total_tokens": len(text) // 4 + 6}
        self.say(200, {"id": "1", "object": "chat.completion", "created": 0, "model": "judge", "choices": [choice], "usage": used})

    def log_message(self, *_):
        pass


def stop(*_):
    print(f"asked {asked} times", flush=True)
    sys.exit(0)


signal.signal(signal.SIGTERM, stop)
server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Judge)
print(f"judging at http://127.0.0.1:{sys.argv[1]}", flush=True)
server.serve_forever()
