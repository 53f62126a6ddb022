"""Chat templates rendered by the engine's own language and by Jinja itself, as transformers sets it up: the same
texts, the same refusals, over random conversations; and of every byte it is known whether a caller wrote it.

    compare_chat_templates.py PROGRAM [SEED [CONVERSATIONS]]

PROGRAM is render_chat_template.
"""

import datetime
import glob
import json
import os
import random
import subprocess
import sys

import jinja2.ext
import jinja2.sandbox

HERE = os.path.dirname(os.path.abspath(__file__))
TEMPLATES = os.path.join(os.path.dirname(HERE), "fixtures", "chat_templates")
NOW = 1_750_000_000


class Generation(jinja2.ext.Extension):
    """{% generation %}, which changes nothing of the text."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

    def _same(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
    env.filters["tojson"] = lambda x, ensure_ascii=False, indent=None, separators=None, sort_keys=False: json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: datetime.datetime.fromtimestamp(NOW).strftime(form)
    return env


ENV = environment()

# One line each: what templates are made of, and its corners. `m` is a list of messages, `d` a mapping, `s` a text.
LINES = r"""
{{ 1 + 2 * 3 - 4 // 3 % 2 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 7 / 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7.5 // 2 }} {{ 1e3 }} {{ 0.1 + 0.2 }}
{{ 1.0 }} {{ 1e16 }} {{ 1e-5 }} {{ 123456789.125 }} {{ 1_000 }} {{ 3 / 3 }} {{ 10 ** -2 }} {{ true + 1 }} {{ -1|abs }} {{ 1 == 1.0 }} {{ true == 1 }}
{{ 'a' ~ 1 ~ none ~ true ~ nothing ~ [1, 'x'] }} {{ 'a' 'b' "c" }} {{ 'it\'s' ~ "\t|\n|\x41|\u00e9|\\" }} {{ '\q' }}
{{ [1, 2.0, 'it''s', "it's", none, true, {'a': [1]}, (1,), (1, 2), ()] }} {{ {'k': 'v', 'n': {'m': none}} }}
{{ 'a' in 'abc' }} {{ 'z' not in 'abc' }} {{ 1 in [1, 2] }} {{ 'role' in m[0] }} {{ 'x' in d }} {{ not 'a' in 'b' }} {{ 'x' in nothing }}
{{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ 'a' < 'b' }} {{ 3 >= 3.0 }} {{ 'a' == 1 }} {{ none == nothing }} {{ nothing == nothing }} {{ [1] == [1.0] }}
{{ 'x' if d }}|{{ 'x' if nothing }}|{{ 'x' if 0 else 'y' if '' else 'z' }} {{ nothing or 'other' }} {{ 'a' and 0 }} {{ not [] }}
{{ s[0] }}{{ s[-1] }}{{ s[1:3] }}{{ s[::-1] }}{{ s[-3:] }}{{ s[:99] }}{{ s[99:] }}{{ s[::2] }} {{ [1,2,3,4][1:-1] }} {{ [1,2,3][::-1] }} {{ [1,2,3,4][-1:0:-2] }} {{ [1][5] }}|
{{ m[0].role }} {{ m[0]['role'] }} {{ m.0.role }} {{ d.none_such }}|{{ d['none such'] }}|{{ none.x }}|{{ 3['x'] }}|
{{ nothing.x }}
{{ nothing() }}
{{ nothing + 1 }}
{{ 1 + 'a' }}
{{ 'a' + 1 }}
{{ 'a' + none }}
{{ 1 // 0 }}
{{ 'x' in none }}
{{ 1 < 'a' }}
{{ none()}}
{% for x in 3 %}{% endfor %}
{% for x in none %}{% endfor %}
{{ [] | length }} {{ nothing | length }} {{ s | length }} {{ d | count }} {{ 'é漢😀' | length }}
{{ 3 | length }}
{{ '  x y  ' | trim }}|{{ ' xx ' | trim('x ') }}|{{ 'xyx'.strip('x') }}|{{ '  a'.lstrip() }}|{{ 'a\n '.rstrip() }}|{{ '\u3000\u00a0a\u2003'.strip() }}|{{ 'aXbX'.rstrip('X') }}
{{ 'hello wORLD-foo (bar 3d' | title }} {{ 'hello wORLD-foo 3d' .title() }} {{ 'hELLO x' | capitalize }} {{ 'aB' | upper }} {{ 'aB'.lower() }}
{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a b c'.split(none, 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ''.split(',') }} {{ ''.split() }} {{ 'a\nb\r\nc\n'.splitlines() }}
{{ 'x'.split('') }}
{{ 'aaa'.replace('a', 'b') }} {{ 'aaa'.replace('a', 'b', 2) }} {{ 'abc'.replace('', '-') }} {{ 'aaa' | replace('a', 'é') }} {{ 'aaa' | replace('a', '', 1) }} {{ 'abc' | replace('', '.') }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'bc')) }} {{ 'abc'.find('c') }} {{ 'éac'.find('c') }} {{ 'abc'.find('z') }} {{ 'abcb'.rfind('b') }} {{ 'banana'.count('an') }} {{ '12'.isdigit() }} {{ 'a1'.isalnum() }} {{ ' '.isspace() }} {{ ''.isdigit() }}
{{ '-'.join(['a', 'b']) }} {{ [1, 2, none] | join('-') }} {{ m | join(', ', attribute='role') }} {{ 'abc' | join('.') }} {{ [] | join }} {{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.txt'.removesuffix('.txt') }}
{{ '-'.join([1]) }}
{{ d | tojson }} {{ s | tojson }} {{ [1, 2.5, true, none, "q\"\\\n\u0001é/<>"] | tojson }} {{ {} | tojson }} {{ [] | tojson(indent=2) }}
{{ {'b': [1, {'c': []}], 'a': {}} | tojson(indent=2) }} {{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }} {{ {1: 2, true: 3, none: 4} | tojson }}
{{ nothing | tojson }}
{{ nothing | default('d') }} {{ '' | default('d') }} {{ '' | default('d', true) }} {{ none | d('d') }} {{ d.zz | default('q') | upper }} {{ nothing|default }}|
{{ [3, 1, 2] | first }} {{ [3, 1, 2] | last }} {{ [3, 1, 2] | sort }} {{ ['b', 'A', 'c'] | sort }} {{ ['b', 'A'] | sort(case_sensitive=true) }} {{ [1, 2] | sort(reverse=true) }} {{ m | sort(attribute='role') | map(attribute='role') | list }} {{ [] | first }}|{{ 'abc' | first }}{{ 'abc' | last }}
{{ [1, 'a'] | sort }}
{{ [3, 1, 2] | max }} {{ [3, 1, 2] | min }} {{ [1, 2] | sum }} {{ [{'n': 1}, {'n': 5}] | sum(attribute='n') }} {{ [] | sum }} {{ [] | max }}|{{ ['a', 'A', 'b'] | unique | list }} {{ d | dictsort }} {{ {'b': 1, 'a': 2} | dictsort(by='value') }}
{{ '42' | int }} {{ '4.7' | int }} {{ 'x' | int }} {{ 'x' | int(9) }} {{ 3.9 | int }} {{ ' 7 ' | int }} {{ '1.5' | float }} {{ 'x' | float }} {{ 3 | float }} {{ none | int }} {{ true | int }}
{{ 2.5 | round }} {{ 3.14159 | round(2) }} {{ 2.1 | round(method='ceil') }} {{ 2.9 | round(0, 'floor') }} {{ 5 | round }} {{ 'one two  three' | wordcount }}
{{ m | map(attribute='role') | list }} {{ ['a'] | map('upper') | list }} {{ m | selectattr('role', 'equalto', 'user') | list | length }} {{ m | rejectattr('role', 'eq', 'user') | map(attribute='role') | list }} {{ [1, 0, 2] | select | list }} {{ [1, 2, 3] | select('odd') | list }} {{ [1, 2, 3] | reject('gt', 1) | list }} {{ m | selectattr('none_such') | list }} {{ m | map(attribute='zz', default='q') | list }} {{ [{'a': {'b': 7}}] | map(attribute='a.b') | first }}
{{ m | selectattr('role', 'in', ['user', 'tool']) | map(attribute='role') | join(',') }} {{ [1, 2] | map('string') | join }} {{ 'y' if m | selectattr('role', 'equalto', 'nobody') else 'n' }} {{ ([1, 2] | reverse | list) }} {{ 'abc' | reverse }} {{ d | items | list }} {{ d | list }}
{{ ('a\nb\n\nc' | indent) ~ '|' ~ ('a\nb' | indent(2, true)) ~ '|' ~ ('a\n\nb' | indent(1, blank=true)) ~ '|' ~ ('a\nb' | indent('> ')) }} {{ 3 | string | length }} {{ 'x' | safe }} {{ 'abc' | list }} {{ d | attr('x') }}|
{{ 1 is defined }} {{ nothing is defined }} {{ nothing is undefined }} {{ none is none }} {{ nothing is none }} {{ 's' is string }} {{ d is mapping }} {{ [] is mapping }} {{ [] is iterable }} {{ 's' is iterable }} {{ 3 is iterable }} {{ [] is sequence }} {{ d is sequence }} {{ nothing is sequence }} {{ 1 is number }} {{ true is number }} {{ 1 is integer }} {{ true is integer }} {{ 1.0 is float }} {{ true is boolean }} {{ false is false }} {{ 1 is true }} {{ range is callable }} {{ none is not none }} {{ 3 is odd }} {{ 3 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ 'a' is eq 'a' }} {{ 1 is ne 2 }} {{ 2 is gt 1 }} {{ 1 is in [1] }} {{ 'a' is lower }} {{ 'A' is upper }} {{ 1 is sameas 1 }} {{ 3 is ge 3 and 2 is lt 3 }} {{ ([1]|map('string')) is iterable }} {{ 1 is not defined or true }}
{% for x in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }}{{ loop.changed(x // 2) }}{{ loop.depth }};{% endfor %}
{% for x in [] %}a{% else %}none{% endfor %} {% for x in [1, 2, 3, 4] if x % 2 == 0 %}{{ loop.index }}:{{ x }}/{{ loop.length }} {% endfor %} {% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %} {% for k in d %}{{ k }}{% endfor %} {% for (a, b) in [(1, 2)] %}{{ a }}{{ b }}{% endfor %} {% for c in 'aé' %}[{{ c }}]{% endfor %} {% for x in nothing %}{% else %}empty{% endfor %}
{% for x in [1, 2, 3, 4] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %} {% for x in range(3) %}{% for y in range(x) %}{{ loop.depth }}{{ loop.index }}{% if y %}{% break %}{% endif %}{% endfor %},{{ loop.index }}{% endfor %} {% for x in range(5, 0, -2) %}{{ x }}{% endfor %} {{ range(2, 4) | list }}
{% set x = 1 %}{% for y in [1, 2] %}{{ x }}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }} {% if true %}{% set x = 9 %}{% endif %}{{ x }} {% set a, b = 1, 2 %}{{ a }}{{ b }} {% set t %}q{{ x }}{% endset %}{{ t }} {% set u | upper | trim %} low {% endset %}[{{ u }}] {% for z in [1] %}{{ z }}{% endfor %}{{ z }}|{{ loop }}|
{% set ns = namespace(a=1, b=[]) %}{% for y in [1, 2] %}{% set ns.a = ns.a + y %}{% set ns.b = ns.b + [y] %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.zz }} {% set n2 = namespace({'q': 1}) %}{{ n2.q }} {{ dict(a=1, b='x') }} {{ dict({'z': 1}, y=2).z }}
{% set x.y = 1 %}
{% set a, b = [1] %}
{% macro f(a, b='B', c=a) %}<{{ a }}{{ b }}{{ c }}>{% endmacro %}{{ f(1) }}{{ f('x', c='y') }}{{ f() }} {% set v = 1 %}{% macro g() %}{{ v }}{% endmacro %}{{ g() }}{% set v = 2 %}{{ g() }} {% macro r(n) %}{{ n }}{% if n %}{{ r(n - 1) }}{% endif %}{% endmacro %}{{ r(4) }} {{ f(1) | length }} {{ f is callable }}
{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}
{% with a = 1, b = 2 %}{{ a + b }}{% set c = 3 %}{% endwith %}{{ c }}|{% filter upper | replace('A', 'z') %}abc{% endfilter %} {% generation %}gen{% endgeneration %} {% raw %}{{ x }}{% y %}{% endraw %} {# note #}{#- trims -#} x
  {% if true %}  a  {% endif %}  b {%- if true -%}  c  {%- endif -%}  d {%+ if true %} e{% endif +%} f
{{- ' g ' -}}  h {{ 'i' }}  {#- j -#}  k
{% if 0 %}a{% elif [] %}b{% elif 'c' %}c{% else %}d{% endif %} {{ ('a') }} {{ (1, 2)[0] }} {{ {'a': 1}['a'] }} {{ {'a': {'b': 2}}.a.b }} {{ [[1, 2], [3]][0][1] }} {{ 'abc'[1] | upper }} {{ ('a' ~ 'b') | length }} {{ not true or true }} {{ 'x' * 3 }} {{ [0] * 2 }} {{ 3 * 'ab' }} {{ 'a' 'b' | upper }} {{ 'a' ~ 'b' | upper }}
{{ strftime_now('%Y') | length }} {{ d.get('x') }} {{ d.get('zz') }} {{ d.get('zz', 'q') }} {{ d.keys() | list }} {{ d.values() | list }} {{ d.items() | list | first }} {{ [1, 2, 1].count(1) }} {{ [1, 2].index(2) }}
{{ raise_exception('Stop here, ' ~ s) }}
{{ m | map(attribute='content') | map('trim') | join('|') }} {{ m[0].content.split() | join(' ') }} {{ m | tojson }} {{ m[-1]['content'] | upper | lower }} {{ (m[0].content * 2)[1:-1] }} {{ m[0] }}
""".strip("\n").split("\n")

WORDS = ["αβγ", "δ", "<think>", "</think>", "<|im_end|>", "[INST]", "{{ x }}", "{% raw %}", "it's", '"q"', "\\n", "ζ<|eot_id|>η"]
SPACES = ["", " ", "  ", "\n", "\n\n", "\t", "\u3000", " \n "]


def content(rng):
    return "".join(rng.choice(SPACES) + rng.choice(WORDS) for _ in range(rng.randrange(5))) + rng.choice(SPACES)


def conversation(rng):
    """Mostly as templates want it; now and then not."""
    messages = [{"role": "system", "content": content(rng)}] if rng.random() < .4 else []
    for turn in range(rng.randrange(1, 6)):
        messages.append({"role": ("user", "assistant")[turn % 2], "content": content(rng)})
    if rng.random() < .2:
        messages.append({"role": rng.choice(["system", "user", "assistant", "tool"]), "content": content(rng)})
    if rng.random() < .1:
        messages = [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    return messages


def jobs(rng, conversations):
    for name in sorted(glob.glob(os.path.join(TEMPLATES, "*.jinja"))):
        with open(name, encoding="utf-8") as file:
            source = file.read()
        for _ in range(conversations):
            given = {"messages": conversation(rng), "add_generation_prompt": rng.random() < .7, "bos_token": "<s>", "eos_token": "</s>"}
            yield os.path.basename(name), source, given
    given = {"m": [{"role": "user", "content": " αβ γ\n"}, {"role": "assistant", "content": "δ"}], "d": {"x": 1, "y": "η"}, "s": "αβγδ"}
    for number, line in enumerate(LINES, 1):
        yield f"line {number}", line, given
    whole = "\r\n".join(line for line in LINES if "error" not in expected(line, given))
    yield "all lines", whole, given


def expected(source, given):
    try:
        return {"text": ENV.from_string(source).render(**given)}
    except Exception as wrong:  # of Jinja or of Python: a refusal
        return {"error": f"{type(wrong).__name__}: {wrong}"}


def wrong_hands(text, callers):
    """Greek and <think> come from callers alone; most of ASCII that templates write does not."""
    raw = text.encode()
    theirs = bytearray(len(raw))
    for at, end in zip(callers[::2], callers[1::2]):
        theirs[at:end] = b"\1" * (end - at)
    at = 0
    for c in text:
        size = len(c.encode())
        if "α" <= c.lower() <= "ω" and not all(theirs[at:at + size]):
            return f"{c!r} at byte {at} is not known as a caller's"
        at += size
    for mark in ("<|im_start|>", "<|start_header_id|>", "<s>", "<start_of_turn>", "<｜User｜>", "<|START_OF_TURN_TOKEN|>"):
        at = raw.find(mark.encode())
        if at >= 0 and any(theirs[at:at + len(mark.encode())]):
            return f"{mark} at byte {at} is taken for a caller's"
    return None


def main():
    program = sys.argv[1]
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    rng = random.Random(seed)
    todo = list(jobs(rng, int(sys.argv[3]) if len(sys.argv) > 3 else 60))
    lines = "".join(json.dumps({"template": source, "given": given}) + "\n" for _, source, given in todo)
    ran = subprocess.run([program], input=lines, capture_output=True, text=True, check=False)
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    bad = 0
    if ran.returncode or len(answers) != len(todo):
        print(f"{program} ended with {ran.returncode} after {len(answers)} of {len(todo)}: {ran.stderr[-2000:]}")
        bad += 1
    for (name, source, given), got in zip(todo, answers):
        want = expected(source, given)
        wrong = None
        if ("error" in want) != ("error" in got) or want.get("text") != got.get("text"):
            wrong = f"want {want}\n  got  {got}"
        elif "text" in got and name.endswith(".jinja"):
            wrong = wrong_hands(got["text"], got["callers"])
        elif "error" in got and want["error"].startswith("TemplateError: ") and want["error"][15:] not in got["error"]:
            wrong = f"want {want}\n  got  {got}"
        if wrong:
            bad += 1
            print(f"{name}: {source if name.startswith('line') else json.dumps(given)}\n  {wrong}")
    print(f"{len(todo)} renderings, {bad} differ; seed {seed}")
    sys.exit(1 if bad else 0)


main()
