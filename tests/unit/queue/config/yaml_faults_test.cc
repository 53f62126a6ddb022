#include "worker/queue/config/yaml_faults.h"

#include <gtest/gtest.h>

#include "worker/queue/config/load_config.h"

namespace penstock::queue {
namespace {

constexpr char kTab[] =
    "not YAML: a tab is in front of this line, and YAML indents by spaces alone";

std::string complaint(const std::string& text) {
  const auto config = parse_config(text, "p.yaml");
  return config ? "" : config.error().message;
}

TEST(YamlFaultsTest, ATabThatIndentsIsNamedWithItsLine) {
  EXPECT_EQ(complaint("socket: /s\nqueues:\n\tdefault: {}\n"), std::string("p.yaml:3: ") + kTab);
  EXPECT_EQ(complaint("socket: /s\nworkers:\n  - name: a\n  \t  engine: simulate\n"),
            std::string("p.yaml:4: ") + kTab);
  EXPECT_EQ(complaint("\tsocket: /s\n"), std::string("p.yaml:1: ") + kTab);
  EXPECT_EQ(complaint("socket:\t/s\nqueues: {\n\tdefault: {}\n}\n"), "") << "there it is a space";
}

TEST(YamlFaultsTest, ABracketThatNobodyClosesIsNamedWithItsLine) {
  EXPECT_EQ(complaint("socket: /s\n"
                      "workers:\n"
                      "  - { name: a, engine: simulate # a } in words\n"
                      "  - { name: b, engine: simulate }\n"),
            "p.yaml:4: not YAML: illegal block entry; the '{' of line 3 is not closed before here");
  EXPECT_EQ(complaint("socket: \"{\"\nstate: a{b\nqueues: [\n  x, y ]\nlimits: { max_body: '}'\n"),
            "p.yaml:6: not YAML: end of map flow not found; the '{' of line 5 is not closed before "
            "here");
  EXPECT_EQ(complaint("socket: a: b\nqueues: {}\n"), "p.yaml:1: not YAML: illegal map value");
}

TEST(YamlFaultsTest, WhatIsToldIsOfTheTextAlone) {
  EXPECT_EQ(explain("", {1, "x"}).what, "x");
  EXPECT_EQ(explain("[\n[ ]\n", {9, "x"}).what, "x; the '[' of line 1 is not closed before here");
  EXPECT_EQ(explain("a\n\n\tb", {2, "x"}).line, 3);
  EXPECT_EQ(explain("a\tb\n", {-5, "x"}).line, -5);
}

}  // namespace
}  // namespace penstock::queue
