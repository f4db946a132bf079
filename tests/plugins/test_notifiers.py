"""The providers' notifiers against real endpoints on this machine: HTTP for Slack, SMTP, and SNS's API (moto)."""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from email import message_from_string, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hyperpod.notifications.configured import configured_notifiers
from hyperpod.operators.night import tell
from include.errors import ConfigurationError, PipelineError
from include.results.alerts import Alert, Trouble

FIRST = Alert(
    trouble=Trouble(
        key="a", kind="regression", title="llama · chat is worse", text="<!channel> +12 % & more", owner="me"
    ),
    opened="2026-10-21", last_seen="2026-10-21",
)  # fmt: skip
SECOND = FIRST.model_copy(
    update={"trouble": FIRST.trouble.model_copy(update={"title": "mistral\n" + "x" * 200}), "closed": "2026-10-22"}
)


@pytest.fixture
def web() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An HTTP server that keeps the JSON it is sent; it refuses paths with ``denied``."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            good = "denied" not in self.path
            seen.append(json.loads(body) if good else {})
            self.send_response(200 if good else 403)
            self.end_headers()
            self.wfile.write(b"ok" if good else b"invalid_token")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/services", seen
    server.shutdown()
    server.server_close()


class _Mail(socketserver.StreamRequestHandler):
    """As much of SMTP (RFC 5321) as a client without extensions needs."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline().decode().strip():
            if line.upper() == "DATA":
                self.wfile.write(b"354 go\r\n")
                lines = []
                while (text := self.rfile.readline().decode().rstrip("\r\n")) != ".":
                    lines.append(text)
                self.server.mails.append("\n".join(lines))  # type: ignore[attr-defined]
            elif line.upper() == "QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            self.wfile.write(b"250 ok\r\n")


@pytest.fixture
def post() -> Iterator[tuple[int, list[str]]]:
    """An SMTP server and the mails it was given."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Mail)
    server.mails = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], server.mails  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


def _connection(monkeypatch: pytest.MonkeyPatch, name: str, **fields: Any) -> None:
    monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(fields))


def test_slack_is_told_each_alert_and_no_name_becomes_a_mention(
    web: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, seen = web
    _connection(monkeypatch, "slack_alerts", conn_type="slackwebhook", host=url, password="T0/B0/secret")
    notifiers = configured_notifiers("slack?conn_id=slack_alerts log")
    for alert in (FIRST, SECOND):
        tell(notifiers, {}, alert)  # type: ignore[typeddict-item]
    assert "&lt;!channel&gt; +12 % &amp; more" in seen[0]["text"]
    assert "(owner: me, since 2026-10-21)" in seen[0]["text"]
    assert seen[1]["text"].startswith("CLOSED mistral")


def test_a_refusal_is_an_error_that_names_the_notifier_and_no_secret(
    web: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _connection(monkeypatch, "slack_alerts", conn_type="slackwebhook", host=web[0], password="denied/secret")
    with pytest.raises(PipelineError, match="NotTold: SlackWebhookNotifier") as told:
        tell(configured_notifiers("slack?conn_id=slack_alerts"), {}, FIRST)  # type: ignore[typeddict-item]
    assert "secret" not in str(told.value)


def test_e_mail_arrives_at_every_address_with_a_plain_subject(
    post: tuple[int, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, mails = post
    extra = {"disable_ssl": True, "disable_tls": True, "from_email": "airflow@example.com"}
    _connection(monkeypatch, "smtp_here", conn_type="smtp", host="127.0.0.1", port=port, extra=extra)
    notifiers = configured_notifiers("email:a@example.com,b@example.com?conn_id=smtp_here")
    for alert in (FIRST, SECOND):
        tell(notifiers, {}, alert)  # type: ignore[typeddict-item]
    one, two = (message_from_string(text, policy=policy.default) for text in mails)
    assert one["Subject"] == "llama / chat is worse"
    assert one["To"] == "a@example.com, b@example.com"
    (part,) = [part for part in one.walk() if part.get_content_type() == "text/html"]
    assert "&lt;!channel&gt; +12 % &amp; more" in part.get_content()
    assert two["Subject"].startswith("CLOSED mistral xxx")
    assert len(two["Subject"]) == 100


def test_sns_publishes_to_the_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    """SNS refuses subjects beyond 100 characters or with line breaks; moto checks both."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        _connection(monkeypatch, "aws_here", conn_type="aws", extra={"region_name": "us-west-2"})
        sns, sqs = (boto3.client(name, region_name="us-west-2") for name in ("sns", "sqs"))
        topic, queue = sns.create_topic(Name="alerts")["TopicArn"], sqs.create_queue(QueueName="q")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        notifiers = configured_notifiers(f"sns:{topic}?conn_id=aws_here&region=us-west-2")
        for alert in (FIRST, SECOND):
            tell(notifiers, {}, alert)  # type: ignore[typeddict-item]
        bodies = [
            json.loads(message["Body"])
            for message in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
        ]
        assert sorted(body["Subject"][:10] for body in bodies) == ["CLOSED mis", "llama / ch"]
        assert any("<!channel> +12 % & more" in body["Message"] for body in bodies)
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pager", "NotifierUnknown: HYPERPOD_NOTIFIERS has 'pager' Fix: name one of email, log, slack, sns"),
        ("email", "NotifierTarget: .*Fix: write email:<address>"),
        ("log:x", "NotifierTarget: .*Fix: write log"),
        ("slack?channel=x", "NotifierOption: .* has channel Fix: known are conn_id"),
    ],
)
def test_a_bad_setting_is_one_sentence_with_the_fix(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        configured_notifiers(text)


def test_a_provider_that_is_not_there_is_named_and_none_is_imported_unasked() -> None:
    code = (
        "import sys\nsys.modules['airflow.providers.slack.notifications'] = None\n"
        "from hyperpod.notifications.configured import configured_notifiers as made\n"
        "assert [type(one).__name__ for one in made('')] == ['LogNotifier']\n"
        "assert not [name for name in sys.modules if name.startswith('airflow.providers.smtp.notif')]\n"
        "try:\n    made('slack')\nexcept Exception as error:\n    print(error)\n"
    )
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": f"{root}:{root / 'plugins'}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert "ProviderMissing: HYPERPOD_NOTIFIERS needs apache-airflow-providers-slack" in done.stdout
    assert "Fix: pip install apache-airflow-providers-slack" in done.stdout
