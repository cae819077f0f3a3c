"""Secrets: values that go in and never come out."""

from controlplane.resources.kinds import of_kind
from schemas.secret import Secret, SecretManifest

EXAMPLE = {
    "kind": "Secret",
    "metadata": {"namespace": "default", "name": "inventory", "labels": {}},
    "spec": {"values": {"password": "correct horse"}},
}
OPERATIONS = of_kind("Secret", SecretManifest, Secret, EXAMPLE)
