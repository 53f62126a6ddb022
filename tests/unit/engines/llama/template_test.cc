// The language of chat templates. What it renders is compared with Jinja itself by
// tests/oracle/compare_chat_templates.py; here are its bounds, its refusals and its hands.
#include "worker/engines/llama/template/template.h"

#include <gtest/gtest.h>

namespace penstock::llama::jinja {
namespace {

std::variant<Text, Trouble> rendered(const std::string& source, const Limits& limits = {}) {
  const auto parsed = Template::parse(source);
  if (!parsed) {
    return Trouble{.message = "parse: " + parsed.error().message};
  }
  const auto given = [](Heap& heap) {
    return std::vector<std::pair<std::string_view, Value>>{
        {"said", heap.add(Text(" <|end|> said\n", Hand::kCaller))}};
  };
  return parsed->render(given, 1'750'000'000, limits);
}

std::string text_of(const std::string& source) {
  const auto result = rendered(source);
  const Text* text = std::get_if<Text>(&result);
  return text != nullptr ? std::string(text->bytes()) : "! " + std::get<Trouble>(result).message;
}

std::string trouble_of(const std::string& source, const Limits& limits = {}) {
  const auto result = rendered(source, limits);
  const Trouble* trouble = std::get_if<Trouble>(&result);
  return trouble != nullptr ? trouble->message : "none";
}

// What callers wrote of the rendering, in [brackets].
std::string hands_of(const std::string& source) {
  const auto result = rendered(source);
  std::string shown;
  if (const Text* text = std::get_if<Text>(&result)) {
    text->each_run([&](size_t from, size_t end, Hand hand) {
      const std::string part(text->bytes().substr(from, end - from));
      shown += hand == Hand::kCaller ? "[" + part + "]" : part;
    });
  }
  return shown;
}

TEST(TemplateTest, WhatACallerWroteIsKnownThroughEveryOperation) {
  EXPECT_EQ(hands_of("<|end|>{{ said | trim }}<|end|>"), "<|end|>[<|end|> said]<|end|>");
  EXPECT_EQ(hands_of("{{ '<' + said.strip() ~ '>' }}"), "<[<|end|> said]>");
  EXPECT_EQ(hands_of("{{ said.split()[0] }}{{ (said | upper)[1:3] }}"), "[<|end|><|]");
  EXPECT_EQ(hands_of("{{ said.split('|') | join('|') }}"), "[ <]|[end]|[> said\n]");
  EXPECT_EQ(hands_of("{{ said.replace('said', 'X') }}"), "[ <|end|> ]X[\n]");
  EXPECT_EQ(hands_of("{{ [said] | tojson }}"), "[\"[ <|end|> said\\n]\"]");
  EXPECT_EQ(hands_of("{{ [said] }}"), "['[ <|end|> said\\n]']");
  EXPECT_EQ(hands_of("{% macro m(x) %}({{ x }}){% endmacro %}{{ m(said) | trim }}"),
            "([ <|end|> said\n])");
  EXPECT_EQ(
      hands_of("{% set s %}a{{ said }}b{% endset %}{{ s | replace('b', '') | indent(1, true) }}"),
      " a[ <|end|> said\n]");
  EXPECT_EQ(hands_of("{% for c in said.strip()[:2] %}{{ c }}.{% endfor %}"), "[<].[|].");
  EXPECT_EQ(hands_of("{{ (said * 2) | reverse | last }}{{ said | list | first }}"), "[  ]");
}

TEST(TemplateTest, WhiteSpaceIsTrimmedAsTagsAsk) {
  EXPECT_EQ(text_of("a\n  {% if true %}\n  b\n  {% endif %}\nc\n"), "a\n  b\nc");
  EXPECT_EQ(text_of("a {%- if true -%} b {%- endif -%} c"), "abc");
  EXPECT_EQ(text_of("  {%+ if true +%}\nx{% endif %}"), "  \nx");
  EXPECT_EQ(text_of("a\r\n{# note #}\r\nb"), "a\nb");
  EXPECT_EQ(text_of("{{ {'a': {}} }}"), "{'a': {}}");
}

TEST(TemplateTest, RaiseExceptionIsItsOwnKindOfTrouble) {
  const auto result = rendered("a\nb{{ raise_exception('Not ' ~ 'so') }}");
  const auto& trouble = std::get<Trouble>(result);
  EXPECT_EQ(trouble.kind, Trouble::Kind::kRaised);
  EXPECT_EQ(trouble.message, "Not so");
  EXPECT_EQ(trouble.line, 2);
}

TEST(TemplateTest, TheTimeIsTold) {
  setenv("TZ", "UTC", 1);
  tzset();
  EXPECT_EQ(text_of("{{ strftime_now('%d %b %Y') }}"), "15 Jun 2025");
  EXPECT_NE(trouble_of("{{ strftime_now('%c' * 100) }}"), "none");
}

TEST(TemplateTest, WhatIsNotImplementedIsRefusedByNameAndLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"\n{% include 'x' %}", "line 2: the tag \"include\""},
      {"{{ x | nonsense }}", "the filter \"nonsense\""},
      {"{{ x is nonsense }}", "the test \"nonsense\""},
      {"{% for x in y recursive %}{% endfor %}", "recursive"},
      {"{{ f(*x) }}", "by * and **"},
      {"{% if x %}", "expected {% endif %}"},
      {"{% endif %}", "\"endif\""},
      {"{% break %}", "into a loop"},
      {"{% for x in y %}{% macro f() %}{% break %}{% endmacro %}{% endfor %}", "into a loop"},
      {"{{ x", "not closed by }}"},
      {"{# x", "not closed by #}"},
      {"{% raw %}", "endraw"},
      {"{{ 'x }}", "a string is not closed"},
      {"{{ 99999999999999999999 }}", "64 bits"},
      {"{{ ) }}", "closes nothing"},
      {"{{ x ! y }}", "no operator '!'"},
      {"{{ }}", "expected an expression"},
      {"\xFF", "UTF-8"},
  };
  for (const auto& [source, expected] : cases) {
    const std::string said = trouble_of(source);
    EXPECT_TRUE(said.starts_with("parse: ")) << source << ": " << said;
    EXPECT_NE(said.find(expected), std::string::npos) << source << ": " << said;
  }
}

TEST(TemplateTest, WhatIsWrongWithTheInputSaysWhat) {
  const std::pair<const char*, const char*> cases[] = {
      {"{{ nothing.x }}", "'nothing' is undefined"},
      {"{{ said.nothing.x }}", "'nothing' is undefined"},
      {"{{ said + 1 }}", "no + of a string and an integer"},
      {"{{ 9223372036854775807 + 1 }}", "64 bits"},
      {"{{ -9223372036854775807 * 3 }}", "64 bits"},
      {"{{ 7 // 0 }}", "division by zero"},
      {"{{ 3() }}", "an integer cannot be called"},
      {"{% set said.x = 1 %}", "'said' is no namespace"},
  };
  for (const auto& [source, expected] : cases) {
    EXPECT_NE(trouble_of(source).find(expected), std::string::npos)
        << source << ": " << trouble_of(source);
  }
}

TEST(TemplateTest, ARenderingIsBoundedInStepsBytesAndDepth) {
  const Limits small{.steps = 10'000, .bytes = 1 << 20, .depth = 100};
  const std::string everything[] = {
      "{% for a in range(1000) %}{% for b in range(1000) %}{% endfor %}{% endfor %}",
      "{{ range(99999999999) }}",
      "{% set ns = namespace(s='xxxxxxxxxxxxxxxx') %}{% for a in range(99) %}{% set ns.s = ns.s + "
      "ns.s %}{% endfor %}",
      "{% set ns = namespace(s=[1]) %}{% for a in range(99) %}{% set ns.s = ns.s + ns.s %}{% "
      "endfor %}",
      "{{ 'x' * 99999999999 }}",
      "{{ ('x' * 1000).replace('x', 'y' * 10000) }}",
      "{{ ('x' * 1000) | replace('', 'y' * 10000) }}",
      "{{ ('x' * 1000) | list | join('y' * 10000) }}",
      "{{ ('\\n' * 1000) | indent(256, true, true) | indent(256) | indent(256) | indent(256) | "
      "indent(256) }}",
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{% macro f() %}{{ f() ~ f() }}{% endmacro %}{{ f() }}",
      "{% set ns = namespace(l=[]) %}{% for a in range(9999) %}{% set ns.l = [ns.l] %}{% endfor "
      "%}{{ ns.l }}",
  };
  for (const std::string& source : everything) {
    const auto result = rendered(source, small);
    EXPECT_TRUE(std::holds_alternative<Trouble>(result)) << source;
  }
  EXPECT_EQ(text_of("{% set ns = namespace(l=[]) %}{% for a in range(999) %}{% set ns.l = [ns.l] %}"
                    "{% endfor %}{{ (ns.l | string) | length }}"),
            "67")
      << "what nests deeply is cut when it is printed";
  EXPECT_NE(
      trouble_of("{% set ns = namespace(l=[]) %}{% for a in range(999) %}{% set ns.l = [ns.l] "
                 "%}{% endfor %}{{ ns.l | tojson }}"),
      "none");
}

TEST(TemplateTest, SourcesThatNestDeeplyAreRefused) {
  const auto nested = [](const std::string& open, const std::string& close) {
    std::string source;
    for (int i = 0; i < 5000; ++i) {
      source += open;
    }
    source += "1";
    for (int i = 0; i < 5000; ++i) {
      source += close;
    }
    return source;
  };
  for (const std::string& inside :
       {nested("(", ")"), nested("[", "]"), nested("not ", ""), nested("-", ""), nested("1+", ""),
        nested("a.", ""), nested("f(", ")"), nested("x if ", ""), nested("1|abs|", "abs")}) {
    EXPECT_NE(trouble_of("{{ " + inside + " }}"), "none") << inside.substr(0, 20);
  }
  EXPECT_NE(trouble_of(nested("{% if 1 %}", "{% endif %}")), "none");
}

}  // namespace
}  // namespace penstock::llama::jinja
