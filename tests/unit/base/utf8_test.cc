#include "shared/base/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace penstock {
namespace {

// By the definition, not by table: what a decoder of the code point would say.
bool is_character(const std::string& bytes) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  uint32_t code = 0;
  const size_t size = bytes.size();
  if (size == 1) {
    return at(0) < 0x80;
  }
  constexpr unsigned char kLead[] = {0, 0, 0xC0, 0xE0, 0xF0};
  constexpr unsigned char kMask[] = {0, 0, 0xE0, 0xF0, 0xF8};
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  if ((at(0) & kMask[size]) != kLead[size]) {
    return false;
  }
  code = at(0) & ~kMask[size];
  for (size_t i = 1; i < size; ++i) {
    if ((at(i) & 0xC0) != 0x80) {
      return false;
    }
    code = code << 6 | (at(i) & 0x3F);
  }
  return code >= kLeast[size] && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
}

TEST(Utf8Test, AgreesWithTheDefinitionOnEveryLeadAndSecondByte) {
  for (int lead = 0; lead < 256; ++lead) {
    for (int second = 0; second < 256; ++second) {
      for (size_t size = 2; size <= 4; ++size) {
        std::string bytes = {static_cast<char>(lead), static_cast<char>(second)};
        bytes.resize(size, '\x80');
        const Utf8Char front = utf8_front(bytes);
        const bool whole = front.kind == Utf8Char::kWhole && front.bytes == size;
        EXPECT_EQ(whole, is_character(bytes)) << lead << " " << second << " " << size;
      }
    }
  }
}

TEST(Utf8Test, TellsACutOffCharacterFromJunk) {
  EXPECT_EQ(utf8_front("\xe2\x82").kind, Utf8Char::kCutOff);
  EXPECT_EQ(utf8_front("\xf0\x9f\x98").kind, Utf8Char::kCutOff);
  EXPECT_EQ(utf8_front("\xe2(").kind, Utf8Char::kInvalid);
  EXPECT_EQ(utf8_front("\xed\xa0").kind, Utf8Char::kInvalid)
      << "half a surrogate can become nothing";
  EXPECT_EQ(utf8_front("\x82").kind, Utf8Char::kInvalid);
}

TEST(Utf8Test, TheCompletePrefixLeavesOutOnlyWhatMayStillBecomeACharacter) {
  EXPECT_EQ(utf8_complete_prefix(""), 0U);
  EXPECT_EQ(utf8_complete_prefix("ab"), 2U);
  EXPECT_EQ(utf8_complete_prefix("a\xc3"), 1U);
  EXPECT_EQ(utf8_complete_prefix("a\xf0\x9f\x98"), 1U);
  EXPECT_EQ(utf8_complete_prefix("a\xf0\x9f\x98\x80"), 5U);
  EXPECT_EQ(utf8_complete_prefix("\x80\x80\x80\x80"), 4U);
  EXPECT_EQ(utf8_complete_prefix("a\xff"), 2U);
}

TEST(Utf8Test, FindsTheFirstInvalidByte) {
  EXPECT_EQ(utf8_first_invalid("é€😀"), std::string_view::npos);
  EXPECT_EQ(utf8_first_invalid("é\xff"), 2U);
  EXPECT_EQ(utf8_first_invalid("aé\xe2\x82"), 3U);
}

TEST(Utf8Test, OneLineShowsNoControlCharacterAndNoJunk) {
  EXPECT_EQ(one_line("a job: \xc3\xa9\xe2\x82\xac"), "a job: \xc3\xa9\xe2\x82\xac");
  EXPECT_EQ(one_line("a\n2026 [error] forged\r\x1b[2J\x7f"), "a?2026 [error] forged??[2J?");
  EXPECT_EQ(one_line("\xc2\x85 next line, \xc2\x9b"
                     "31m colour"),
            "? next line, ?31m colour");
  EXPECT_EQ(one_line("\xc2\xa0 is no control"), "\xc2\xa0 is no control");
  EXPECT_EQ(one_line("\x9b and \xe2\x82"), "? and ?");
}

}  // namespace
}  // namespace penstock
