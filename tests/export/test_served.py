"""A fused model is served by mlx-lm's server, as the next steps say."""

import json
import socket
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import Request, urlopen

from hawsweep.views.terminal.export import next_commands

PATIENCE_S = 120


def ask(port, prompt):
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 5, "temperature": 0}
    request = Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urlopen(request, timeout=PATIENCE_S) as answer:
                return json.load(answer)
        except URLError:
            assert time.monotonic() < deadline
            time.sleep(0.5)


def test_fused_model_answers_by_the_server_of_the_next_steps(made):
    exported = made.export(fuse=True)
    (command,) = [each for each in next_commands(exported, "x") if "mlx_lm.server" in each]
    model = made.folder / "fused"
    assert command == f"mlx_lm.server --model {model}"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "mlx_lm", "server", "--model", str(model), "--port", str(port)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        answer = ask(port, exported.example)
    finally:
        server.kill()
        server.wait()
    assert answer["usage"]["completion_tokens"] > 0
    assert answer["choices"][0]["message"]["role"] == "assistant"
