#include "shared/keys/keys_file.h"

#include <gtest/gtest.h>

namespace penstock::keys {
namespace {

constexpr char kDigestA[] =
    "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";  // of "test"
constexpr char kFirst[] = "penstock-keys 1\n";

std::string line(std::string_view rest, std::string_view digest = kDigestA) {
  return std::string(digest) + " " + std::string(rest) + "\n";
}

std::string file(const std::string& lines, int count = 1) {
  return kFirst + lines + "end " + std::to_string(count) + "\n";
}

std::string error_of(const std::string& text) {
  const auto keys = read_keys(text);
  return keys ? "read" : keys.error().message;
}

TEST(KeysFileTest, AKeyIsFoundByItsDigestAlone) {
  const auto keys = read_keys(file(line("team-a free 2026-11-30T07:00:00Z - laptop of Ann")));
  ASSERT_TRUE(keys) << keys.error().message;
  const Key* const key = find_key(*keys, challenge::sha256("test"));
  ASSERT_NE(key, nullptr);
  EXPECT_EQ(key->owner, "team-a");
  EXPECT_EQ(key->tier, "free");
  EXPECT_EQ(key->name, "laptop of Ann");
  EXPECT_EQ(key->made_s, 1796022000);
  EXPECT_FALSE(key->has_ended(INT64_MAX));
  EXPECT_EQ(id_of(key->digest), "9f86d081884c");
  EXPECT_EQ(find_key(*keys, challenge::sha256("Test")), nullptr);
  EXPECT_EQ(find_key(*keys, std::span(key->digest).first(16)), key);
  EXPECT_EQ(find_key({}, challenge::sha256("test")), nullptr);
}

TEST(KeysFileTest, WhatIsWrittenIsReadAgain) {
  std::vector<Key> keys;
  for (int i = 0; i < 1000; ++i) {
    keys.push_back({challenge::sha256(std::to_string(i)), "o" + std::to_string(i % 7),
                    i % 3 == 0 ? "" : "pro", 1'800'000'000 + i, i % 2 == 0 ? 0 : 1'900'000'000 + i,
                    i % 5 == 0 ? "" : "für Anna"});
  }
  const auto again = read_keys(write_keys(keys));
  ASSERT_TRUE(again) << again.error().message;
  ASSERT_EQ(again->size(), keys.size());
  for (const Key& key : keys) {
    const Key* const found = find_key(*again, key.digest);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(std::tie(found->owner, found->tier, found->made_s, found->ends_s, found->name),
              std::tie(key.owner, key.tier, key.made_s, key.ends_s, key.name));
  }
}

TEST(KeysFileTest, AKeyIsGoodUntilTheSecondItEnds) {
  const auto keys = read_keys(file(line("a - 2026-11-30T07:00:00Z 2026-11-30T08:00:00Z")));
  ASSERT_TRUE(keys);
  const Key& key = keys->front();
  EXPECT_EQ(key.tier, "");
  EXPECT_FALSE(key.has_ended(key.made_s + 3599));
  EXPECT_TRUE(key.has_ended(key.made_s + 3600));
}

TEST(KeysFileTest, WhatIsWrongIsSaidWithItsLine) {
  const std::string fine = line("a - 2026-11-30T07:00:00Z -");
  EXPECT_EQ(error_of(file("\n# remark\n" + fine)), "read");
  EXPECT_EQ(error_of(file("", 0)), "read");
  EXPECT_EQ(error_of("penstock-keys 2\n"),
            "line 1: a file of keys begins with \"penstock-keys 1\"");
  const struct {
    std::string text;
    std::string_view says;
  } wrong[] = {
      {fine + fine + "end 2\n", "key 9f86d081884c on two lines"},
      {fine + line("b - 2026-11-30T07:00:00Z -", "9F86"), "line 3: begins with the SHA-256"},
      {line("session:x - 2026-11-30T07:00:00Z -"), "line 2: then comes whose the key is"},
      {line("10.0.0.1 - 2026-11-30T07:00:00Z -"), "neither an IPv4 address"},
      {line("a fr/ee 2026-11-30T07:00:00Z -"), "a plan's name"},
      {line("a - 2026-02-30T07:00:00Z -"), "when it was issued"},
      {line("a - 2026-11-30T07:00:00Z"), "when it was issued"},
      {line("a - 2026-11-30T07:00:00Z 2026-11-30"), "when it ends"},
      {line("a - 2026-11-30T07:00:00Z - a\tb"), "text on one line"},
      {line("a - 2026-11-30T07:00:00Z - \xff"), "text on one line"},
      {line("a - 2026-11-30T07:00:00Z -\r"), "- for never"},
  };
  for (const auto& each : wrong) {
    EXPECT_NE(error_of(kFirst + each.text).find(each.says), std::string::npos)
        << error_of(kFirst + each.text);
  }
  EXPECT_NE(error_of(std::string(kMostFileBytes + 1, '\n')).find("larger than 16 MiB"),
            std::string::npos);
}

TEST(KeysFileTest, OfAnEmptyFileItIsSaidWhatToDo) {
  EXPECT_EQ(error_of(""), "is empty: remove it, and \"penstockctl keys add OWNER\" makes it anew");
  EXPECT_NE(error_of(kFirst).find("\"end COUNT\", is missing"), std::string::npos);
}

// As one sees it that is written in place, or by whom the disk was full.
TEST(KeysFileTest, NoPartOfAFileIsAFile) {
  const std::string whole = file(line("a - 2026-11-30T07:00:00Z -") +
                                     line("b - 2026-11-30T07:00:00Z - b", std::string(64, 'a')),
                                 2);
  EXPECT_EQ(error_of(whole), "read");
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_NE(error_of(whole.substr(0, size)), "read") << size;
  }
  EXPECT_NE(error_of(whole + "\n").find("nothing comes after"), std::string::npos);
  EXPECT_NE(error_of(file(line("a - 2026-11-30T07:00:00Z -"), 2)).find("end 1"), std::string::npos);
}

TEST(KeysFileTest, WhoMayOwn) {
  for (const char* fine : {"a", "ann@b.example", "123", "9f86d081884", "9F86D081884C"}) {
    EXPECT_TRUE(is_owner(fine)) << fine;
  }
  for (const char* wrong :
       {"", "a b", "session:x", "10.0.0.1", "2001:db8::/64", "9f86d081884c", "ä"}) {
    EXPECT_FALSE(is_owner(wrong)) << wrong;
  }
  EXPECT_FALSE(is_owner(std::string(129, 'a')));
}

TEST(KeysFileTest, NewKeysAreLongAndDiffer) {
  const auto a = make_key();
  const auto b = make_key();
  ASSERT_TRUE(a && b);
  EXPECT_EQ(a->size(), 12 + 64);
  EXPECT_TRUE(a->starts_with("sk-penstock-"));
  EXPECT_NE(*a, *b);
}

TEST(KeysFileTest, TimesThatAreNone) {
  EXPECT_EQ(parse_time("1970-01-01T00:00:00Z"), 0);
  EXPECT_EQ(format_time(parse_time("2028-02-29T23:59:59Z")), "2028-02-29T23:59:59Z");
  for (const char* text : {"2027-02-29T00:00:00Z", "2026-11-30T24:00:00Z", "2026-11-30T07:60:00Z",
                           "2026-11-30 07:00:00Z", "2026-11-30T07:00:00", "1969-12-31T23:59:59Z",
                           "2026-1--30T07:00:00Z", "2026-00-30T07:00:00Z"}) {
    EXPECT_EQ(parse_time(text), -1) << text;
  }
}

}  // namespace
}  // namespace penstock::keys
