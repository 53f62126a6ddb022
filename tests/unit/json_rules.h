// JSON's grammar (RFC 8259) by example: what each reader of ours must take, and what none may.
#pragma once

#include <string>
#include <vector>

namespace penstock::json_rules {

inline std::string nested(size_t depth) {
  return std::string(depth, '[') + std::string(depth, ']');
}

inline const std::vector<std::string> kValid = {
    "null", " true\r\n", "\tfalse ", "[]", "{ }", "[ 1 , [ ] , { } ]", R"({"":0,"a":{"b":[null]}})",
    R"({"a":1,"a":2})",
    // Numbers: of any size.
    "0", "-0", "0.0", "10.50", "1e400", "1E+2", "-2e-0", "340282366920938463463374607431768211455",
    "18446744073709551616", "-9223372036854775809", "1" + std::string(2000, '0'),
    "0." + std::string(2000, '1'),
    // Strings: every escape, every plane, what JavaScript and others hold to be special.
    R"("\"\\\/\b\f\n\r\t\u0000\uFFFF\uabCD")", R"("\ud83d\ude00")",
    "\"\xC2\x80\xE2\x82\xAC\xF0\x9D\x84\x9E\"", "\"\x7F\xE2\x80\xA8\"", R"(" //[]{}:,")",
    nested(50)};

inline const std::vector<std::string> kInvalid = {
    "", " ", "{", "[", "]", "[1", "[1,]", "[,1]", "[1 2]", "[1,,2]", "[]]", "{}}", "{]", "[}",
    "{} {}", "1 1", "{,}", R"({"a"})", R"({"a":})", R"({"a" 1})", R"({"a"::1})", R"({"a":1,})",
    R"({"a":1 "b":2})", R"({"a":1,,"b":2})", "{a:1}", "{'a':1}", "{1:1}", "{null:1}",
    "{\"a\":1}/*x*/", "[1]//x", "[1]#x", "True", "nul", "nulll", "NaN", "Infinity", "undefined",
    "a", "01", "-01", "-", "+1", "1.", ".5", "1.e1", "1e", "1e+", "0x1", "1_0", "- 1", "--1",
    "1.2.3", "1e1.5", "\xEF\xBC\x91", "\"", "\"a", "\"\\\"", "'a'", R"("\x")", R"("\u12")",
    R"("\u12g4")", R"("\U0041")", "\"a\nb\"", "\"\t\"", std::string("\"\0\"", 3),
    // Not UTF-8: alone, overlong, a surrogate, past U+10FFFF, cut off.
    "\"\x80\"", "\"\xC0\xAF\"", "\"\xED\xA0\x80\"", "\"\xF4\x90\x80\x80\"", "\"\xE2\x82\"",
    // White space that is none in JSON.
    "\xC2\xA0[]", "\f[]", "[]\v", std::string("[\0]", 3), nested(5000)};

// The grammar has it, and it is no Unicode text: half of a surrogate pair. Each may do as it likes.
inline const std::vector<std::string> kOpen = {R"("\ud83d")", R"("\ude00\ud83d")",
                                               R"(["\uD800\n"])"};

}  // namespace penstock::json_rules
