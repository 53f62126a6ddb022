#include "shared/http/form_fields.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace penstock::http {
namespace {

constexpr std::string_view kNames[] = {"model", "prompt"};
constexpr char kType[] = "multipart/form-data; boundary=AaB03x";

std::string part(const std::string& head, const std::string& value) {
  return "--AaB03x\r\nContent-Disposition: form-data; " + head + "\r\n\r\n" + value + "\r\n";
}
constexpr char kEnd[] = "--AaB03x--\r\n";

struct Seen {
  std::string model;
  std::string prompt;
  uint64_t files = 0;
  bool operator==(const Seen&) const = default;
};

Seen read(const std::vector<std::string_view>& pieces, std::string_view type = kType) {
  FormFields fields(kNames, type);
  for (const std::string_view piece : pieces) {
    if (fields.feed(piece)) {
      break;
    }
  }
  return {std::string(fields[0].text), std::string(fields[1].text), fields.files()};
}
Seen read(const std::string& body, std::string_view type = kType) {
  Seen whole = read(std::vector<std::string_view>{body}, type);
  for (size_t cut = 0; cut <= body.size(); ++cut) {
    const std::string_view text = body;
    EXPECT_EQ(read({text.substr(0, cut), text.substr(cut)}, type), whole) << cut;
  }
  std::vector<std::string_view> crumbs;
  for (size_t i = 0; i < body.size(); ++i) {
    crumbs.emplace_back(body.data() + i, 1);
  }
  EXPECT_EQ(read(crumbs, type), whole);
  return whole;
}

TEST(FormFieldsTest, FindsFieldsBetweenFilesWhereverTheBodyIsCut) {
  const std::string file = "RIFF\r\n--AaB03\r\n--\r\r\n--AaB03y\n" + std::string("\0\r", 2);
  const Seen seen =
      read(part("name=\"file\"; filename=\"a.wav\"", file) + part("name=\"model\"", "whisper-1") +
           part("name=prompt", "two\r\nlines") + kEnd);
  EXPECT_EQ(seen, (Seen{"whisper-1", "two\r\nlines", 1}));
}

TEST(FormFieldsTest, WhatStandsBehindABoundaryThatIsNoneIsTheValuesOwn) {
  for (const std::string value :
       {"a\n--AaB03x\rb", "a\n--AaB03x \t\rb", "a\n--AaB03x-b", "a\n--AaB03x- -b"}) {
    EXPECT_EQ(read(part("name=\"model\"", value) + kEnd).model, value);
  }
}

TEST(FormFieldsTest, ReadsWhatOtherServersRead) {
  const std::string model =
      "--AaB03x\nContent-Disposition: form-data; name=\"model\"\n\nm\n--AaB03x--";
  EXPECT_EQ(read(model).model, "m") << "lines that end in LF";
  EXPECT_EQ(read("preamble\r\n" + part("name=\"model\"", "m") + kEnd).model, "m");
  EXPECT_EQ(
      read("--AaB03x \t\r\n"
           "CONTENT-disposition : form-data;\r\n  NAME=\"model\"\r\nX: y\r\n\r\nm\r\n--AaB03x")
          .model,
      "")
      << "without the end of its line it is no boundary";
  EXPECT_EQ(
      read("--AaB03x \t\r\nCONTENT-disposition : form-data;\r\n  NAME=\"model\"\r\nX: y\r\n\r\n"
           "m\r\n--AaB03x\r\n")
          .model,
      "m");
  EXPECT_EQ(read(part("name=\"mo\\del\"", "m") + kEnd).model, "m");
  EXPECT_EQ(read(part("filename=\"a;name=b\"; name=\"model\"", "m") + kEnd), (Seen{"m", "", 1}));
  // An empty part whose boundary follows at once.
  EXPECT_EQ(read("--AaB03x\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n" +
                 part("name=\"model\"", "m") + kEnd)
                .model,
            "m");
}

TEST(FormFieldsTest, TheLastOfANameCounts) {
  EXPECT_EQ(read(part("name=\"model\"", "a") + part("name=\"model\"", "b") + kEnd).model, "b");
  const std::string cut = part("name=\"model\"", "a") +
                          "--AaB03x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nb";
  EXPECT_EQ(read(cut).model, "") << "and nothing of it when its end has not come";
}

TEST(FormFieldsTest, AValueHasItsPlaceInTheBody) {
  const std::string body = part("name=prompt", "\n--AaB") + part("name=model", "m") +
                           part("name=model", "the last") + kEnd;
  for (size_t cut = 0; cut <= body.size(); ++cut) {
    FormFields fields(kNames, kType);
    fields.feed(std::string_view(body).substr(0, cut));
    fields.feed(std::string_view(body).substr(cut));
    EXPECT_EQ(body.substr(fields.begin(0), fields[0].bytes), "the last") << cut;
    EXPECT_EQ(body.substr(fields.begin(1), fields[1].bytes), "\n--AaB") << cut;
    EXPECT_EQ(fields.delimiter(), "--AaB03x");
  }
  EXPECT_EQ(FormFields(kNames, "multipart/form-data").delimiter(), "");
}

TEST(FormFieldsTest, ALongValueHasALengthAndADigestAndNoText) {
  FormFields fields(kNames, kType);
  const std::string value(300, 'x');
  fields.feed(part("name=\"model\"", value) + part("name=\"prompt\"", value + "y") + kEnd);
  EXPECT_EQ(fields[0].text, "");
  EXPECT_EQ(fields[0].bytes, 300U);
  EXPECT_EQ(fields[1].bytes, 301U);
  EXPECT_NE(fields[0].digest, fields[1].digest);
}

TEST(FormFieldsTest, TheBoundaryIsThatOfTheType) {
  const std::string body = part("name=\"model\"", "m") + kEnd;
  EXPECT_EQ(read(body, "Multipart/Form-Data ;charset=x; Boundary=\"AaB03x\"").model, "m");
  EXPECT_EQ(read(body, "multipart/form-data; boundary=AaB03").model, "");
  EXPECT_EQ(read(body, "multipart/form-data").model, "");
  EXPECT_EQ(read(body, "multipart/form-data; boundary=" + std::string(71, 'x')).model, "");
  EXPECT_TRUE(FormFields::is_form("multipart/form-data; boundary=x"));
  EXPECT_FALSE(FormFields::is_form("multipart/form-data-like; boundary=x"));
  EXPECT_FALSE(FormFields::is_form("application/json"));
}

TEST(FormFieldsTest, WhatFollowsTheEndIsNotRead) {
  FormFields fields(kNames, kType);
  EXPECT_TRUE(fields.feed(part("name=\"model\"", "m") + kEnd + part("name=\"model\"", "other")));
  EXPECT_EQ(fields[0].text, "m");
}

TEST(FormFieldsTest, KnowsWhatIsNoFormFromItsFirstByte) {
  const auto is_form = [](const std::string& body, std::string_view type = kType) {
    FormFields fields(kNames, type);
    for (const char& c : body) {
      fields.feed({&c, 1});
    }
    return fields.is_form();
  };
  const std::string form = part("name=model", "m") + kEnd;
  EXPECT_TRUE(is_form(form));
  EXPECT_TRUE(is_form("\r\n" + form));
  EXPECT_TRUE(is_form(kEnd));
  EXPECT_FALSE(is_form(R"({"model":"m"})"));
  EXPECT_FALSE(is_form("{}\r\n" + form));
  EXPECT_FALSE(is_form(form, "multipart/form-data"));
  EXPECT_FALSE(is_form(form, "multipart/form-data; boundary=other"));
}

}  // namespace
}  // namespace penstock::http
