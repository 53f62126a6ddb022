"""What `nginx -t` says of a mistake: where it is, what is wrong, what would be right."""

import re

import pytest

ZONE = "penstock_zone edge 1m;"
TIER = "penstock_tier free { rate 1r/s; }"


def limit(arguments):
    return f"location / {{ penstock_limit {arguments}; empty_gif; }}"


# (what is wrong, http block, server block, what the message must have)
MISTAKES = [
    ("unknown unit", ZONE, limit("zone=edge key=a rate=10x/m name=a"), r'"10x/m".*10r/m'),
    ("unknown period", ZONE, limit("zone=edge key=a rate=10r/y name=a"), r'"10r/y".*s, m, h, d, w, M'),
    ("no unit", ZONE, limit("zone=edge key=a rate=10 name=a"), r'"10".*such as 10r/m'),
    ("a rate of nothing", ZONE, limit("zone=edge key=a rate=0r/m name=a"), r'"0r/m".*from 1'),
    ("a unit of a later version", ZONE, limit("zone=edge key=a rate=10t/m name=a"), r'"10t/m".*requests'),
    ("burst that is no number", ZONE, limit("zone=edge key=a rate=1r/m burst=lots name=a"), r'burst "lots".*from 1'),
    ("burst of nothing", ZONE, limit("zone=edge key=a rate=1r/m burst=0 name=a"), r'burst "0".*from 1'),
    ("unknown zone", ZONE, limit("zone=egde key=a rate=1r/m name=a"), r'"egde"'),
    ("no zone", ZONE, limit("key=a rate=1r/m name=a"), r"zone=NAME"),
    ("no key", ZONE, limit("zone=edge rate=1r/m name=a"), r"key="),
    ("neither tier nor rate", ZONE, limit("zone=edge key=a"), r"tier=.*rate="),
    ("both tier and rate", ZONE + TIER, limit("zone=edge key=a tier=free rate=1r/m name=a"), r"tier=.*rate="),
    ("unknown tier, named in the file", ZONE + TIER, limit("zone=edge key=a tier=fre"), r'"fre"'),
    ("unknown parameter of a limit", ZONE, limit("zone=edge key=a rate=1r/m nmae=a"), r'"nmae=a".*name='),
    ("a name with a quote", ZONE, limit("zone=edge key=a rate=1r/m name='a\"b'"), r"a-z"),
    ("one name, two rates", ZONE, limit("zone=edge key=a rate=1r/m name=a") +
     "location /b { penstock_limit zone=edge key=a rate=2r/m name=a; empty_gif; }", r'"a".*other.*name='),
    ("duplicate tier", ZONE + TIER + TIER, "", r'tier "free".*twice'),
    ("unknown line in a tier", ZONE + "penstock_tier free { rate 1r/s; prioritee 3; }", "", r'"prioritee".*priority'),
    ("priority that is no number", ZONE + "penstock_tier free { rate 1r/s; priority high; }", "", r"priority.*whole number"),
    ("weight of nothing", ZONE + "penstock_tier free { rate 1r/s; weight 0; }", "", r"weight.*from 1"),
    ("duplicate zone", ZONE + ZONE, "", r'zone "edge".*twice'),
    ("zone too small", "penstock_zone edge 1k;", "", r'"1k".*k or more'),
    ("zone without a size", "penstock_zone edge;", "", r"penstock_zone"),
    ("unknown parameter of a zone", "penstock_zone edge 1m redis=x;", "", r'"redis=x"'),
    ("pass to an upstream there is not", ZONE, "location / { penstock_pass gpuu; }", r'"gpuu"'),
    ("pass twice", ZONE, "location / { penstock_pass gpu; penstock_pass gpu; }", r"duplicate"),
    ("pass with an unknown parameter", ZONE, "location / { penstock_pass gpu quue=video; }", r"quue=video"),
    ("a zone below its first use", "server { " + limit("zone=edge key=a rate=1r/m name=a") + " } " + ZONE, "",
     r'"edge".*above'),
    ("owner without a value", ZONE, "penstock_owner;", r"penstock_owner"),
]


@pytest.mark.parametrize("what,http,server,message", MISTAKES, ids=[case[0].replace(" ", "-") for case in MISTAKES])
def test_nginx_t_names_the_line_the_fault_and_the_remedy(penstock, what, http, server, message):
    service = penstock(start=False, http=http, server=server, workers=[])
    accepted, said = service.nginx.check()
    assert not accepted, said
    complaints = [line for line in said.splitlines() if "[emerg]" in line]
    assert len(complaints) == 1, said
    assert re.search(message, complaints[0]), complaints[0]
    assert re.search(r" in \S+/nginx\.conf:\d+$", complaints[0]), complaints[0]


def test_a_limit_is_inherited_and_replaced_like_other_directives(penstock):
    service = penstock(http=ZONE, server="""
        penstock_limit zone=edge key=$arg_key rate=1r/h name=outer;
        location /inherits { empty_gif; }
        location /own { penstock_limit zone=edge key=$arg_key rate=2r/h name=own; empty_gif; }""")
    assert service.statuses(2, "/inherits?key=k") == [200, 429]
    assert service.statuses(3, "/own?key=k") == [200, 200, 429]
