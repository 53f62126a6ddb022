"""Prometheus and Alertmanager of a test's own, which look at one Nginx."""

import json
import math
import re
import urllib.parse
import urllib.request
from pathlib import Path

from processes import Process
from waiting import Port, until

SHIPPED = Path(__file__).parents[2] / "config" / "prometheus"
OFTEN = "250ms"  # scrapes, and looks at the rules


def in_seconds(rules):
    """The shipped rules in a hurry: they look back ten seconds, hold for half a second, and waits are long after one."""
    rules = re.sub(r"for: \d+m", "for: 500ms", rules)
    rules = re.sub(r"\[\d+[mhd]\]", "[10s]", rules)
    return rules.replace("> 60\n", "> 1\n")


def queries(board):
    """(panel, expression) of a dashboard, with its variables as Grafana would put them in at first."""
    names = {each["name"]: each.get("allValue") for each in board["templating"]["list"]}
    names["__rate_interval"] = "60s"
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield f"{board['title']}, {panel['title']}", re.sub(r"\$(\w+)", lambda found: names[found[1]], target["expr"])


class Monitoring:
    def __init__(self, folder, port):
        self._ports = [Port(), Port()]
        self.prometheus, self.alertmanager = [f"127.0.0.1:{each.number}" for each in self._ports]
        home = folder / "monitoring"
        home.mkdir()
        shipped = (SHIPPED / "prometheus.yml").read_text()
        for ours, theirs in (("127.0.0.1:8080", f"127.0.0.1:{port}"), ("127.0.0.1:9093", self.alertmanager), (": 15s", f": {OFTEN}")):
            assert ours in shipped
            shipped = shipped.replace(ours, theirs)
        (home / "prometheus.yml").write_text(shipped)
        (home / "penstock.rules.yml").write_text(in_seconds((SHIPPED / "penstock.rules.yml").read_text()))
        (home / "alertmanager.yml").write_text("route: { receiver: nobody }\nreceivers: [{ name: nobody }]\n")
        self._processes = [
            Process(home, "alertmanager", [
                "prometheus-alertmanager", "--config.file=alertmanager.yml", "--storage.path=alerts", "--cluster.listen-address=",
                f"--web.listen-address={self.alertmanager}"]),
            Process(home, "prometheus", [
                "prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={self.prometheus}"])]
        until(self._ready, lambda: "both are ready: " + "".join(each.text()[-1000:] for each in self._processes), 60)

    def _ready(self):
        assert all(each.alive() for each in self._processes), "".join(each.text()[-1000:] for each in self._processes)
        try:
            return [urllib.request.urlopen(f"http://{each}/-/ready", timeout=5).status
                    for each in (self.alertmanager, self.prometheus)] == [200, 200]
        except OSError:
            return False

    def _ask(self, path, **arguments):
        with urllib.request.urlopen(f"http://{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(arguments)}", timeout=20) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        """Its samples now: [(labels, value)]."""
        return [(each["metric"], float(each["value"][1])) for each in self._ask("query", query=expression)["result"]]

    def label_values(self, label, metric):
        return self._ask(f"label/{label}/values", **{"match[]": metric})

    def alerts(self):
        """Those that Alertmanager has: {name: annotations}."""
        with urllib.request.urlopen(f"http://{self.alertmanager}/api/v2/alerts", timeout=20) as answer:
            return {each["labels"]["alertname"]: each["annotations"] for each in json.load(answer)}

    def until_fire(self, *names, meanwhile=lambda: None):
        """Until Alertmanager has had each of them."""
        seen = set()

        def all_seen():
            meanwhile()
            seen.update(self.alerts())
            return seen >= set(names)
        until(all_seen, lambda: f"{set(names) - seen} fire; those that did are {seen}", 60)

    def until_over(self, *names, meanwhile=lambda: None):
        def none_fires():
            meanwhile()
            return not set(names) & set(self.alerts())
        until(none_fires, lambda: f"none of {names} fires; of all {set(self.alerts())} do", 60)

    def unanswered(self, board):
        """(panel, query) of a Grafana dashboard, for each query that has no figure."""
        return sorted((panel, query) for panel, query in queries(board) if not any(math.isfinite(value) for _, value in self.query(query)))

    def close(self):
        for process in self._processes:
            process.kill()
        for port in self._ports:
            port.release()
