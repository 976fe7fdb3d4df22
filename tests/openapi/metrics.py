"""Reads metrics as Prometheus does, and prints them as JSON: name, type, and each series."""

import json
import sys

from prometheus_client.parser import text_string_to_metric_families

families = text_string_to_metric_families(sys.stdin.read())
print(json.dumps([
    {
        "name": family.name,
        "type": family.type,
        "help": family.documentation,
        "series": [{"name": s.name, "labels": s.labels, "value": s.value} for s in family.samples],
    }
    for family in families
]))
