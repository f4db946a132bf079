"""Where the load goes, as a person gives it on the command line. Secrets are named, never written there."""

from __future__ import annotations

import argparse
import os
import ssl

from include.loadtest.checks import bad_option, checked
from include.loadtest.planning import split_url
from include.loadtest.target import Target

# A command line is seen by every user of the machine and kept in the shell's history.
_SECRET = ("authorization", "api-key", "cookie", "token", "secret", "password")


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `target` reads, and the workload's name."""
    parser.add_argument("--url", required=True, help="base URL, http(s)://host[:port][/prefix]")
    parser.add_argument("--path", default="", help="below the URL, instead of the protocol's usual one")
    parser.add_argument("--model", default="", help="model name in the request body")
    parser.add_argument("--workload", default="smoke", help="name in include/catalog/workloads, or a YAML file")
    parser.add_argument("--protocol", help="openai-chat, openai-completions, invocations, sagemaker or embeddings")
    parser.add_argument("--body-format", help="invocations, sagemaker: openai-chat, openai-completions, tgi or djl")
    parser.add_argument("--no-stream", action="store_true", help="ask for whole answers")
    parser.add_argument("--endpoint-name", help="sagemaker: name of the endpoint")
    parser.add_argument("--region", help="sagemaker: region that requests are signed for")
    parser.add_argument("--api-key-env", metavar="VARIABLE", help="environment variable with the bearer token")
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="sent with every request")
    parser.add_argument(
        "--header-env", action="append", default=[], metavar="NAME=VARIABLE", help="header with a secret value"
    )
    parser.add_argument("--ca-file", help="PEM file of the authority to trust")
    parser.add_argument("--client-cert", metavar="PEM", help="client certificate")
    parser.add_argument("--client-key", metavar="PEM", help="its private key, when that is a file of its own")
    parser.add_argument("--insecure", action="store_true", help="do not check the server's certificate")


def target(options: argparse.Namespace) -> Target:
    """Return where the load goes.

    :raises ConfigurationError: ``BadOption``; certificate files are tried too.
    """
    values = {
        "base_url": options.url,
        "path": options.path,
        "model": options.model,
        "protocol": options.protocol,
        "stream": False if options.no_stream else None,
        "headers": _headers(options),
        "ca_file": options.ca_file,
        "insecure": options.insecure,
        "client_cert_file": options.client_cert,
        "client_key_file": options.client_key,
        "endpoint_name": options.endpoint_name,
        "region": options.region,
    }
    if options.body_format is not None:
        values["body_format"] = options.body_format
    found = checked(Target, values)
    split_url(found.base_url)
    _refuse_unused(options, found)
    _try_certificates(found)
    return found


def _headers(options: argparse.Namespace) -> dict[str, str]:
    found = {}
    for text in options.header:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise bad_option(f"--header {text!r} has no colon", "write NAME:VALUE")
        if any(word in name.lower() for word in _SECRET):
            raise bad_option(
                f"--header {name.strip()!r}: its value would be seen in the list of processes",
                "use --api-key-env VARIABLE, or --header-env NAME=VARIABLE",
            )
        found[name.strip()] = value.strip()
    for text in options.header_env:
        name, equals, variable = text.partition("=")
        if not equals or not name.strip():
            raise bad_option(f"--header-env {text!r} names no variable", "write NAME=VARIABLE")
        found[name.strip()] = _secret("--header-env", variable)
    if options.api_key_env is not None:
        found["Authorization"] = f"Bearer {_secret('--api-key-env', options.api_key_env)}"
    return found


def _secret(option: str, variable: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        raise bad_option(f"{option} {variable!r}: the environment has no such variable, or it is empty", "export it")
    if not value.isprintable():
        raise bad_option(f"{option} {variable!r}: the value holds a line end or another control character", "strip it")
    return value


def _refuse_unused(options: argparse.Namespace, found: Target) -> None:
    """Refuse what the protocol would ignore; the workload's protocol is not known here, an option's is."""
    if options.client_key and not options.client_cert:
        raise bad_option(f"--client-key {options.client_key!r} says nothing alone", "add --client-cert")
    if found.protocol is None or found.protocol == "sagemaker":
        return
    for name in ("endpoint_name", "region"):
        if getattr(found, name):
            option = "--" + name.replace("_", "-")
            raise bad_option(
                f"{option} {getattr(found, name)!r} says nothing for {found.protocol}", "use --protocol sagemaker"
            )
    if options.body_format and found.protocol != "invocations":
        raise bad_option(f"--body-format {options.body_format!r} says nothing for {found.protocol}", "leave it out")


def _try_certificates(found: Target) -> None:
    if found.ca_file:
        try:
            ssl.create_default_context(cafile=found.ca_file)
        except OSError as error:  # SSLError is one
            raise bad_option(f"--ca-file {found.ca_file!r}: {error.strerror or error}", "give a PEM file") from error
    if found.client_cert_file:
        try:
            ssl.create_default_context().load_cert_chain(
                found.client_cert_file,
                found.client_key_file,
                password="",
            )
        except OSError as error:
            fix = "give PEM files of a certificate and of its key"
            raise bad_option(f"--client-cert {found.client_cert_file!r}: {error.strerror or error}", fix) from error
