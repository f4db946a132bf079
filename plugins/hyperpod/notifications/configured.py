"""Which notifiers tell the alerts: a line of text that names them, so that no Dag file has to be edited.

``HYPERPOD_NOTIFIERS="log slack?conn_id=slack_alerts email:team@example.com sns:arn:aws:sns:us-west-2:1:alerts"``

| entry | provider | options |
|---|---|---|
| ``log`` | none | none |
| ``slack`` | ``apache-airflow-providers-slack``, an incoming webhook | ``conn_id`` (``slack_default``) |
| ``email:<to>[,<to>]`` | ``apache-airflow-providers-smtp`` | ``conn_id`` (``smtp_default``), ``from`` |
| ``sns:<topic ARN>`` | ``apache-airflow-providers-amazon`` | ``conn_id`` (``aws_default``), ``region`` |
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl

from airflow.sdk import BaseNotifier

from hyperpod.notifications.log import LogNotifier
from include.errors import ConfigurationError

VARIABLE = "HYPERPOD_NOTIFIERS"
# Only these three have a meaning in Slack's text; a name must not become a mention of a whole channel.
SLACK_TEXT = "{{ alert | replace('&', '&amp;') | replace('<', '&lt;') | replace('>', '&gt;') }}"
Options = Mapping[str, str]


def configured_notifiers(text: str | None = None) -> list[BaseNotifier]:
    """Return the notifiers that ``text`` (default: ``HYPERPOD_NOTIFIERS``) names; none named: the log.

    :raises ConfigurationError: an unknown entry or option, or a provider that is not installed.
    """
    given = os.environ.get(VARIABLE, "") if text is None else text
    return [_notifier(entry) for entry in given.split() or ["log"]]


def _notifier(entry: str) -> BaseNotifier:
    name, _, query = entry.partition("?")
    kind, _, target = name.partition(":")
    if kind not in KINDS:
        raise ConfigurationError(
            "NotifierUnknown", f"{VARIABLE} has {entry!r}", fix=f"name one of {', '.join(sorted(KINDS))}"
        )
    build, known, needs_target = KINDS[kind]
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(set(options) - known):
        fix = f"known are {', '.join(sorted(known)) or 'none'}"
        raise ConfigurationError("NotifierOption", f"{VARIABLE}: {entry!r} has {', '.join(unknown)}", fix=fix)
    if needs_target != bool(target):
        fix = f"write {kind}:<{'address' if kind == 'email' else 'topic ARN'}>" if needs_target else f"write {kind}"
        raise ConfigurationError("NotifierTarget", f"{VARIABLE} has {entry!r}", fix=fix)
    return build(target, options)


def _provided(package: str, module: str, name: str) -> Any:
    """Return a provider's notifier class; providers are imported when one is named, never before."""
    try:
        return getattr(import_module(f"airflow.providers.{module}"), name)
    except ImportError as error:
        raise ConfigurationError(
            "ProviderMissing", f"{VARIABLE} needs {package}: {error}", fix=f"pip install {package}"
        ) from error


def _log(_target: str, _options: Options) -> BaseNotifier:
    return LogNotifier()


def _slack(_target: str, options: Options) -> BaseNotifier:
    kind = _provided("apache-airflow-providers-slack", "slack.notifications.slack_webhook", "SlackWebhookNotifier")
    made: BaseNotifier = kind(slack_webhook_conn_id=options.get("conn_id", "slack_default"), text=SLACK_TEXT)
    return made


def _email(target: str, options: Options) -> BaseNotifier:
    kind = _provided("apache-airflow-providers-smtp", "smtp.notifications.smtp", "SmtpNotifier")
    made: BaseNotifier = kind(
        to=target.split(","),
        from_email=options.get("from"),
        subject="{{ alert_subject }}",
        html_content="<pre>{{ alert | e }}</pre>",
        smtp_conn_id=options.get("conn_id", "smtp_default"),
    )
    return made


def _sns(target: str, options: Options) -> BaseNotifier:
    kind = _provided("apache-airflow-providers-amazon", "amazon.aws.notifications.sns", "SnsNotifier")
    made: BaseNotifier = kind(
        target_arn=target,
        subject="{{ alert_subject }}",
        message="{{ alert }}",
        aws_conn_id=options.get("conn_id", "aws_default"),
        region_name=options.get("region"),
    )
    return made


Builder = Callable[[str, Options], BaseNotifier]
# Builder, options, whether it needs a target.
KINDS: dict[str, tuple[Builder, set[str], bool]] = {
    "log": (_log, set(), False),
    "slack": (_slack, {"conn_id"}, False),
    "email": (_email, {"conn_id", "from"}, True),
    "sns": (_sns, {"conn_id", "region"}, True),
}
