"""What `nginx -t` says of a mistake: where it is, what is wrong, what would be right."""

import re
import resource

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
    ("pass behind another that answers", ZONE, "location / { proxy_pass http://127.0.0.1:1; penstock_pass gpu; }",
     r'"penstock_pass" stands where another directive answers already'),
    ("pass before another that answers", ZONE, "location /a { penstock_pass gpu; proxy_pass http://127.0.0.1:1; }",
     r'location "/a" has two directives that answer'),
    ("jobs beside another that answers", ZONE, "location /a { penstock_jobs gpu; empty_gif; }", r'location "/a" has two directives that answer'),
    ("pass beside another in an if", ZONE, "location /a { if ($arg_a) { penstock_pass gpu; proxy_pass http://127.0.0.1:1; } }",
     r'location "/a" has two directives that answer'),
    ("whose earlier answers nobody knows", ZONE, "penstock_earlier mine;", r"own, shared or off"),
    ("earlier answers of no age", ZONE, "penstock_earlier own max_age=0;", r"at least a second"),
    ("an age of none", ZONE, "penstock_earlier off max_age=1h;", r"after the first two"),
    ("earlier twice", ZONE, "penstock_earlier own; penstock_earlier own;", r"duplicate"),
    ("busy, and then what", ZONE, "penstock_busy later;", r"earlier.*or refuse"),
    ("an earlier answer of a limit that rejects", ZONE, limit("zone=edge key=a rate=1r/s name=a degrade_to=earlier"), r"belongs to action=degrade"),
    ("an origin with a path", ZONE, "penstock_origins https://a.example/;", r"https://app\.example.*without a path.*any"),
    ("an origin beside any", ZONE, "penstock_origins any https://a.example;", r"https://app\.example.*the one word any"),
    ("too few buffers to be busy", ZONE, "penstock_busy_buffers_size 1k;", r"penstock_busy_buffers_size must hold a penstock_buffer_size"),
    ("too many buffers to be busy", ZONE, "penstock_busy_buffers_size 64k;", r"no more than all penstock_buffers but one"),
    ("too small a temporary file", ZONE, "penstock_max_temp_file_size 1k;", r"penstock_max_temp_file_size must be 0"),
    ("too small a write", ZONE, "penstock_temp_file_write_size 1k;", r"penstock_temp_file_write_size must hold"),
    ("pass with an unknown parameter", ZONE, "location / { penstock_pass gpu quue=video; }", r"quue=video"),
    ("a zone below its first use", "server { " + limit("zone=edge key=a rate=1r/m name=a") + " } " + ZONE, "",
     r'"edge".*above'),
    ("owner without a value", ZONE, "penstock_owner;", r"penstock_owner"),
    ("unknown algorithm", ZONE, limit("zone=edge key=a rate=1r/m algorithm=bucket name=a"), r'"bucket".*token_bucket.*fixed_window'),
    ("a window with a burst", ZONE, limit("zone=edge key=a rate=1r/m burst=2 algorithm=sliding_window name=a"), r"burst=.*token_bucket"),
    ("a log of tokens", ZONE, limit("zone=edge key=a rate=10t/m algorithm=sliding_log name=a"), r'"10t/m".*sliding_window'),
    ("a log that is too long", ZONE, limit("zone=edge key=a rate=1001r/m algorithm=sliding_log name=a"), r'"1001r/m".*1000'),
    ("a window beyond what is counted", ZONE, limit("zone=edge key=a rate=900000r/s algorithm=sliding_window name=a"),
     r'"900000r/s".*524287'),
    ("GPU time beyond what is counted", ZONE, limit("zone=edge key=a rate=5000000gs/s algorithm=sliding_window name=a"), r'"5000000gs/s"'),
    ("burst of GPU time beyond what is counted", ZONE, limit("zone=edge key=a rate=1gs/s burst=2000000 name=a"),
     r'burst "2000000".*to 1000000'),
    ("a rate of a fraction", ZONE, limit("zone=edge key=a rate=0.5r/s name=a"), r'"0\.5r/s".*a whole number.*30r/m for 0\.5r/s'),
    ("headers of an unknown word", ZONE, "penstock_headers yes;", r'penstock_headers takes on, refused or off, not "yes"'),
    ("a log level of an unknown word", ZONE, "penstock_log_level debug;", r'takes off, info, notice, warn or error, not "debug"'),
    ("a wait that is no time", ZONE, "penstock_max_wait 30x;", r'penstock_max_wait takes a time such as 500ms, 30s or 5m, not "30x"'),
    ("a buffer that is no size", ZONE, "penstock_buffer_size 4kb;", r'penstock_buffer_size takes a size such as 64k or 1m, not "4kb"'),
    ("an upstream that is none", ZONE, "location /v1/ { penstock_pass gpuu; }",
     r'there is no upstream "gpuu": write upstream gpuu \{ server unix:/run/penstock/penstock.sock; \}, or name unix:PATH or HOST:PORT'),
    ("a rate beyond numbers", ZONE, limit("zone=edge key=a rate=99999999999999999999r/m name=a"), r"to 1000000000"),
    ("a quota with an unknown period", ZONE, limit("zone=edge key=a quota=10r/y name=a"), r'quota "10r/y".*s, m, h, d, w, M'),
    ("a quota with a burst", ZONE, limit("zone=edge key=a quota=10r/d burst=2 name=a"), r"quota has no burst="),
    ("a quota with an algorithm", ZONE, limit("zone=edge key=a quota=10r/d algorithm=sliding_log name=a"), r"quota has no.*calendar"),
    ("both rate and quota", ZONE, limit("zone=edge key=a rate=1r/m quota=10r/d name=a"), r"one of tier=.*rate=.*quota=.*concurrency="),
    ("concurrency that is no number", ZONE, limit("zone=edge key=a concurrency=lots name=a"), r'concurrency "lots".*such as 8'),
    ("concurrency of nothing", ZONE, limit("zone=edge key=a concurrency=0 name=a"), r'concurrency "0"'),
    ("concurrency beyond what is counted", ZONE, limit("zone=edge key=a concurrency=2000000 name=a"), r'"2000000".*1048575'),
    ("concurrency with a burst", ZONE, limit("zone=edge key=a concurrency=2 burst=3 name=a"), r"concurrency has no burst="),
    ("unknown action", ZONE, limit("zone=edge key=a rate=1r/m name=a action=wait"), r'"wait".*reject, delay, degrade and challenge'),
    ("delay without a bound", ZONE, limit("zone=edge key=a rate=1r/m name=a action=delay"), r"max_delay=TIME.*max_delay=5s"),
    ("a bound that is no time", ZONE, limit("zone=edge key=a rate=1r/m name=a action=delay max_delay=soon"), r"max_delay=5s"),
    ("a bound of nothing", ZONE, limit("zone=edge key=a rate=1r/m name=a action=delay max_delay=0"), r"max_delay=5s"),
    ("a bound beyond a day", ZONE, limit("zone=edge key=a rate=1r/m name=a action=delay max_delay=25h"), r"max_delay=.*a day"),
    ("a bound without delay", ZONE, limit("zone=edge key=a rate=1r/m name=a max_delay=5s"), r"max_delay=.*action=delay"),
    ("delay by a window", ZONE, limit("zone=edge key=a rate=1r/m algorithm=fixed_window name=a action=delay max_delay=5s"),
     r"action=delay.*token_bucket"),
    ("delay by a quota", ZONE, limit("zone=edge key=a quota=1r/d name=a action=delay max_delay=5s"), r"action=delay.*token_bucket"),
    ("delay by concurrency", ZONE, limit("zone=edge key=a concurrency=1 name=a action=delay max_delay=5s"), r"action=delay.*token_bucket"),
    ("degrade to nothing", ZONE, limit("zone=edge key=a rate=1r/m name=a action=degrade"), r"degrade_to=FIELD=VALUE.*degrade_to=model=small"),
    ("degrade without a field", ZONE, limit("zone=edge key=a rate=1r/m name=a action=degrade degrade_to=small"), r"degrade_to=model=small"),
    ("degrade without a value", ZONE, limit("zone=edge key=a rate=1r/m name=a action=degrade degrade_to=model="), r"degrade_to=model=small"),
    ("degrade by a field of capitals", ZONE, limit("zone=edge key=a rate=1r/m name=a action=degrade degrade_to=Size=1"), r"a field is.*a-z"),
    ("degrade with a quote", ZONE, limit("zone=edge key=a rate=1r/m name=a action=degrade 'degrade_to=size=\"'"), r"a value.*without quotes"),
    ("a lesser model without degrade", ZONE, limit("zone=edge key=a rate=1r/m name=a degrade_to=model=small"), r"degrade_to=.*action=degrade"),
    ("a dry run that may be", ZONE, limit("zone=edge key=a rate=1r/m name=a dry_run=maybe"), r"dry_run.*on or off"),
    ("unknown stage", ZONE, limit("zone=edge key=a rate=1r/m name=a stage=content"), r"stage.*preaccess or access"),
    ("a parameter twice", ZONE, limit("zone=edge key=a rate=1r/m rate=2r/m name=a"), r'"rate=2r/m".*twice'),
    ("a tier's limit with terms", ZONE + TIER, limit("zone=edge key=a tier=free burst=3"), r"penstock_tier block"),
    ("two zones in one place", ZONE + "penstock_zone other 1m;", "location / { penstock_limit zone=edge key=a rate=1r/m name=a; "
     "penstock_limit zone=other key=a rate=1r/m name=b; empty_gif; }", r'"other" differs from "edge".*one zone'),
    ("a plan's limits of one name", ZONE + "penstock_tier free { rate 1r/s; rate 2t/m; rate 3t/m; }", "",
     r'two limits named "free-rate-tokens-m".*name=NAME'),
    ("two plans with other limits of one name", ZONE + "penstock_tier a { rate 1r/s name=x; } penstock_tier b { rate 2r/s name=x; }",
     limit("zone=edge key=a tier=$arg_tier"), r'"x" has other terms.*rename'),
    ("a plan of too many limits", ZONE + "penstock_tier free { " + " ".join(f"rate {i}r/d name=r{i};" for i in range(1, 10)) + " }", "",
     r'"free" has more than 8'),
    ("a quota without an amount", ZONE + "penstock_tier free { quota; }", "", r"quota needs an amount"),
    ("a quota of a plan with a burst", ZONE + "penstock_tier free { quota 10r/d burst=3; }", "", r"quota has no burst="),
    ("concurrency of a plan without an amount", ZONE + "penstock_tier free { concurrency; }", "", r"concurrency needs.*concurrency 8"),
    ("a line of a plan with too much", ZONE + "penstock_tier free { rate 1r/s 2r/s; }", "", r'"2r/s".*burst=N, algorithm=NAME and name=NAME'),
    ("a variant that is no name", ZONE + "penstock_tier free { variant 'a b'; }", "", r'variant "a b".*a-z'),
    ("a cost of an unknown unit", ZONE, "penstock_cost x 1;", r'unit "x".*r, t .*gs'),
    ("a cost that is no formula", ZONE, "penstock_cost gs 'n *';", r'"n \*".*character'),
    ("a cost twice", ZONE, "penstock_cost gs n; penstock_cost gs 1;", r"penstock_cost gs.*twice"),
    ("a limit that no page obeys", ZONE, "location / { penstock_metrics; penstock_limit zone=edge key=a rate=1r/s name=a; }",
     r"does nothing beside penstock_metrics.*pages=on"),
    ("a parameter without a value", ZONE, limit("zone=edge key=a rate=1r/m name=a burst="), r'"burst=" .*no value.*leave it out'),
    ("a plan's parameter without a value", ZONE + "penstock_tier free { rate 1r/m burst=; }", "", r'"burst=" of rate has no value'),
    ("a plan of two weights", ZONE + "penstock_tier free { weight 1; rate 1r/s; weight 3; }", "", r'weight.*"free" twice'),
    ("a plan of two explanations", ZONE + "penstock_tier free { penstock_docs a; penstock_docs b; }", "", r'penstock_docs.*"free" twice'),
    ("a zone of two files", "penstock_zone edge 1m file=a file=b;", "", r'"file=b".*file=PATH comes once'),
    ("a cost below nothing", ZONE, "penstock_cost r -1;", r'"-1".*at least 0'),
    ("a cost that is no number", ZONE, "penstock_cost r '1 / 0';", r'"1 / 0".*at least 0'),
    ("held back by no number", ZONE + "penstock_max_delayed lots;", "", r"number"),
]

# (what is doubtful, http block, server block, what the warning must have)
DOUBTS = [
    ("a quota smaller than a burst", ZONE + "penstock_tier free { rate 100r/m; quota 50r/d; }", "",
     r'quota "free-quota-d" is smaller than what "free-rate".*at most 50'),
    ("a quota of tokens smaller than a burst", ZONE + "penstock_tier free { rate 2000t/m; quota 50t/d; }", "",
     r'quota "free-quota-tokens-d".*at most 50'),
    ("a zone too small for its limits", "penstock_zone edge 32k;", limit("zone=edge key=$arg_key rate=1000r/m algorithm=sliding_log name=a"),
     r'zone "edge" is too small.*k or more'),
    ("a page in no folder", ZONE, "location / { penstock_ui gpu root=/nope; }", r'penstock_ui: there is no folder "/nope".*root=PATH'),
    ("a page without its index", ZONE, "location / { penstock_ui gpu root=/proc/self/fd; }", r'no index.html in "/proc/self/fd"'),
    ("a zone's file in no folder", "penstock_zone edge 1m file=nowhere/edge;", "", r'zone "edge": there is no folder "/\S+/nowhere/".*make it'),
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


@pytest.mark.parametrize("what,http,server,message", DOUBTS, ids=[case[0].replace(" ", "-") for case in DOUBTS])
def test_nginx_t_warns_of_what_contradicts_itself(penstock, what, http, server, message):
    service = penstock(start=False, http=http, server=server)
    accepted, said = service.nginx.check()
    assert accepted, said
    warnings = [line for line in said.splitlines() if "[warn]" in line]
    assert len(warnings) == 1, said
    assert re.search(message, warnings[0]), warnings[0]
    assert re.search(r" in \S+/nginx\.conf:\d+$", warnings[0]), warnings[0]


@pytest.mark.parametrize("balancer", ["", "least_conn;", "keepalive 4;", "zone shared 64k;"])
def test_an_upstream_s_block_may_come_behind_its_name(penstock, balancer):
    """Names are bound once all is read; what stands in for the block until then warns of no balancer."""
    service = penstock(start=False, http=ZONE + "server { listen unix:early; location / { penstock_pass late; } }\n"
                       f"upstream late {{ {balancer} server unix:somewhere; }}")
    accepted, said = service.nginx.check()
    assert accepted and "[warn]" not in said, said


def test_what_makes_sense_is_not_warned_of(penstock):
    service = penstock(start=False, http=ZONE + """
        penstock_tier free { rate 10r/m burst=5; rate 2000t/m; quota 50r/d; quota 100000t/M; concurrency 1; priority 0; weight 1;
                             variant a; penstock_docs https://example.com/plans; }
        penstock_tier pro { rate 10r/s burst=20; rate 200000t/m; rate 60gs/m; quota 100000r/M; concurrency 8; priority 10; weight 4; }
        penstock_docs https://example.com/limits;
        penstock_max_delayed 100;""", server="""
        penstock_limit zone=edge key=$http_authorization tier=$arg_tier;
        penstock_limit zone=edge key=$remote_addr rate=50r/s name=ip action=delay max_delay=5s;
        penstock_limit zone=edge key=$penstock_model:$penstock_body_user rate=200r/s algorithm=sliding_window name=model dry_run=on;
        penstock_limit zone=edge key=all concurrency=2000 name=site;
        penstock_limit zone=edge key=$remote_user quota=5gs/d name=gpu stage=access action=degrade degrade_to=model=org/small-1.5:latest;
        penstock_cost gs "(n|1) * size * (steps|30) / 20000000";
        location / { penstock_pass gpu; }""")
    accepted, said = service.nginx.check()
    assert accepted and "[warn]" not in said and "[emerg]" not in said, said


def test_nginx_t_touches_no_zone_s_memory(penstock):
    service = penstock(http="penstock_zone edge 900m;", server="location / { empty_gif; }", start=False)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    accepted, said = service.nginx.check()
    assert accepted, said
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert largest == before or largest < 300 * 1024  # KiB


@pytest.mark.parametrize("name", ['a\\"b', "a\\\\b", "\xe9", "a" * 65])
def test_a_name_that_headers_could_not_carry_as_it_is_is_refused(penstock, name):
    service = penstock(http="penstock_zone edge 1m;", start=False,
                       server=f"location / {{ penstock_limit zone=edge key=$arg_k rate=1r/s name={name}; empty_gif; }}")
    accepted, said = service.nginx.check()
    assert not accepted and ("a name is 1 to 64 of" in said or "unexpected" in said), said


def test_a_limit_is_inherited_and_replaced_like_other_directives(penstock):
    service = penstock(http=ZONE, server="""
        penstock_limit zone=edge key=$arg_key rate=1r/h name=outer;
        location /inherits { empty_gif; }
        location /own { penstock_limit zone=edge key=$arg_key rate=2r/h name=own; empty_gif; }""")
    assert service.statuses(2, "/inherits?key=k") == [200, 429]
    assert service.statuses(3, "/own?key=k") == [200, 200, 429]
