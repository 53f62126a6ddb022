#include "shared/http/body_fields.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <ostream>
#include <string>
#include <vector>

namespace penstock::http {

bool operator==(const BodyField& a, const BodyField& b) {
  return a.type == b.type && a.text == b.text && a.bytes == b.bytes;
}
void PrintTo(const BodyField& field, std::ostream* out) {
  *out << "type " << int{static_cast<uint8_t>(field.type)} << ", text '" << field.text << "', "
       << field.bytes << " bytes";
}

namespace {

using Type = BodyField::Type;

// What a body says of some names.
class Reading {
 public:
  explicit Reading(std::vector<std::string_view> names) : names_(std::move(names)) {}

  // True as soon as a piece is the last that matters.
  bool feed(std::string_view piece) { return fields_.feed(piece); }
  BodyField operator[](size_t i) const { return fields_[i]; }

 private:
  std::vector<std::string_view> names_;
  BodyFields fields_{names_};
};

std::string model(std::string_view body) {
  Reading reading({"model"});
  reading.feed(body);
  return std::string(reading[0].text);
}

// The value of "v" in {"v":VALUE}.
class One {
 public:
  explicit One(const std::string& value) { reading_.feed(R"({"v":)" + value + "}"); }
  BodyField operator*() const { return reading_[0]; }

 private:
  Reading reading_{{"v"}};
};

BodyField field(Type type, std::string_view text, uint64_t bytes) { return {type, text, bytes}; }

// Every cut of the body into three pieces.
void expect_same_wherever_cut(const std::vector<std::string_view>& names, std::string_view body) {
  Reading whole(names);
  whole.feed(body);
  for (size_t i = 0; i <= body.size(); ++i) {
    for (size_t j = i; j <= body.size(); ++j) {
      Reading parts(names);
      parts.feed(body.substr(0, i));
      parts.feed(body.substr(i, j - i));
      parts.feed(body.substr(j));
      for (size_t n = 0; n < names.size(); ++n) {
        ASSERT_EQ(parts[n], whole[n]) << names[n] << " cut at " << i << ' ' << j;
        ASSERT_EQ(parts[n].digest, whole[n].digest) << names[n] << " cut at " << i << ' ' << j;
      }
    }
  }
}

TEST(BodyFieldsTest, PassesOverAByteOrderMarkAsSomeEnginesDo) {
  EXPECT_EQ(model("\xEF\xBB\xBF {\"model\":\"m\"}"), "m");
  EXPECT_EQ(model("\xBB{\"model\":\"m\"}"), "");
  EXPECT_EQ(model(" \xEF\xBB\xBF{\"model\":\"m\"}"), "");
  expect_same_wherever_cut({"model"}, "\xEF\xBB\xBF{\"model\":\"m\"}");
}

TEST(BodyFieldsTest, FindsTheTopLevelFieldWhereverItStands) {
  EXPECT_EQ(model(R"({"model":"demo"})"), "demo");
  EXPECT_EQ(model(R"( { "prompt" : "hi", "model" : "a/b-1" , "n":1})"), "a/b-1");
  EXPECT_EQ(model(R"({"a":[1,{"model":"inner"},"]"],"b":{"model":"inner"},"model":"outer"})"),
            "outer");
}

TEST(BodyFieldsTest, IsNotFooledByStringsThatLookLikeIt) {
  EXPECT_EQ(model(R"({"prompt":"\"model\":\"x\"","model":"real"})"), "real");
  EXPECT_EQ(model(R"({"prompt":"\\","model":"real"})"), "real");
  EXPECT_EQ(model(R"({"prompt":"\\\"","model":"real"})"), "real");
  EXPECT_EQ(model(R"({"prompt":["\"]",{"a":"}\\"}],"model":"real"})"), "real");
  EXPECT_EQ(model(R"({"modelx":"no","mode":"no"})"), "");
}

TEST(BodyFieldsTest, UndoesEscapesInKeyAndValue) {
  EXPECT_EQ(model("{\"\\u006dodel\":\"d\\u0065mo\\u00e9\\u20AC\\n\"}"),
            "demo\xC3\xA9\xE2\x82\xAC\n");
  EXPECT_EQ(*One(R"("\"\\\/\b\f\r\t")"), field(Type::kString, "\"\\/\b\f\r\t", 16));
}

TEST(BodyFieldsTest, TakesTheLastOfSeveralOfOneName) {
  EXPECT_EQ(model(R"({"model":"a","model":"b"})"), "b");
  EXPECT_EQ(model(R"({"model":"a","mod\u0065l":"b","x":{"model":"c"}})"), "b");
  EXPECT_EQ(model(R"({"model":"a","model":")"), "") << "its last value has not come yet";
  Reading reading({"n", "z", "y"});
  reading.feed(R"({"n":[1],"n":2,"n":null,"z":tomato,"z":3,"y":3,"y":tomato})");
  EXPECT_EQ(reading[0], field(Type::kNull, "null", 4));
  EXPECT_EQ(reading[1], field(Type::kNumber, "3", 1));
  EXPECT_EQ(reading[2], BodyField{});
  expect_same_wherever_cut({"a"}, R"({"a":"one","b":"a","a":[2,"a"],"\u0061" : "three"})");
}

TEST(BodyFieldsTest, YieldsNoTextFromWhatIsNotAnObjectWithSuchAString) {
  for (const char* body :
       {"", "xxxx", "[1]", R"("model")", R"({"model":[1]})", R"({"model":tomato})",
        R"({"model":"cut)", R"({"model" "x"})", "{}", R"({"model":"\ud800"})", R"({"model":"\q"})",
        R"({"model":"\u12"})", R"({"\q":1,"model":"x"})", R"({"a":1]"model":"x"})",
        R"({,"model":"x"})"}) {
    EXPECT_EQ(model(body), "") << body;
  }
  EXPECT_EQ(model("{\"model\":\"" + std::string(129, 'm') + "\"}"), "");
  EXPECT_EQ(model("{\"model\":\"" + std::string(128, 'm') + "\"}"), std::string(128, 'm'));
}

TEST(BodyFieldsTest, FindsSeveralFieldsInAnyOrder) {
  Reading reading({"model", "steps", "none", "stream", "size"});
  EXPECT_FALSE(reading.feed(R"({"size":"64x32", "stream":true,"x":{"steps":1,"none":2},)"));
  EXPECT_TRUE(reading.feed(R"("steps" : 30 ,"model":"m"})"));
  EXPECT_EQ(reading[0], field(Type::kString, "m", 3));
  EXPECT_EQ(reading[1], field(Type::kNumber, "30", 2));
  EXPECT_EQ(reading[2], BodyField{});
  EXPECT_EQ(reading[3], field(Type::kBoolean, "true", 4));
  EXPECT_EQ(reading[4], field(Type::kString, "64x32", 7));
  EXPECT_EQ(reading[5], BodyField{});
}

TEST(BodyFieldsTest, IgnoresFieldsOfTheSameNameFurtherDown) {
  Reading reading({"a", "b"});
  reading.feed(R"({"x":{"a":1,"b":[{"b":2}]},"a":{"b":3,"a":4},"b":5})");
  EXPECT_EQ(reading[0], field(Type::kObject, "", 13));
  EXPECT_EQ(reading[1], field(Type::kNumber, "5", 1));
}

TEST(BodyFieldsTest, TellsTheLengthOfValuesInTheBody) {
  EXPECT_EQ(*One(R"("")"), field(Type::kString, "", 2));
  EXPECT_EQ(*One(R"(  "ab"  )"), field(Type::kString, "ab", 4));
  EXPECT_EQ(*One(R"("\u00e9")"), field(Type::kString, "\xC3\xA9", 8)) << "as sent, escapes and all";
}

TEST(BodyFieldsTest, DoesNotCountWhiteSpaceBetweenTokens) {
  EXPECT_EQ(*One("[ 1,\n\t{ \"a b\" :\r\n2 } ]"), field(Type::kArray, "", 13));
  EXPECT_EQ(*One(R"("  ")"), field(Type::kString, "  ", 4));
}

TEST(BodyFieldsTest, TellsApartByTheirDigestWhatHasNoText) {
  const auto digest = [](const std::string& value) { return (*One(value)).digest; };
  const std::string longer(1000, 'x');
  EXPECT_EQ(digest('"' + longer + "a\""), digest('"' + longer + "a\""));
  EXPECT_NE(digest('"' + longer + "a\""), digest('"' + longer + "b\""));
  EXPECT_NE(digest('"' + longer + "\""), digest('"' + longer + "x\""));
  EXPECT_NE(digest("[1]"), digest("[2]"));
  EXPECT_NE(digest(R"("\ud83d\ude00")"), digest(R"("\ud83d\ude01")"));
}

TEST(BodyFieldsTest, SaysWhenNothingMoreCanChange) {
  EXPECT_FALSE(Reading({"a"}).feed(R"({"a":"x")")) << "another may come, and would count";
  EXPECT_FALSE(Reading({"a"}).feed(R"({"a":[[]])"));
  EXPECT_TRUE(Reading({"a"}).feed(R"({"a":1})"));
  EXPECT_TRUE(Reading({"a", "b"}).feed(R"({"a":"x"})")) << "the object is closed";
  EXPECT_TRUE(Reading({"a"}).feed(" [")) << "not an object";
  EXPECT_TRUE(Reading(std::vector<std::string_view>{}).feed("")) << "nothing is wanted";
}

TEST(BodyFieldsTest, KeepsNumbersAsWrittenIfTheyAreNumbers) {
  for (const char* number : {"0", "-0.5", "1e3", "1E+3", "2.50e-1", "12345678901234567890"}) {
    EXPECT_EQ(*One(number), field(Type::kNumber, number, std::strlen(number)));
  }
  for (const char* other :
       {"-", "+1", ".5", "1.", "1e", "1e+", "0x10", "1-2", "NaN", "Infinity", "True", "nul", ""}) {
    EXPECT_EQ(*One(other), BodyField{}) << other;
  }
}

TEST(BodyFieldsTest, DoesNotJudgeWhatFollowsAValue) {
  EXPECT_EQ(model(R"({"model":"x" y z})"), "x");
  for (const char* value : {"1 2", "1\"x\"", "1[2]", "1{"}) {
    EXPECT_EQ(*One(value), field(Type::kNumber, "1", 1)) << value;
  }
}

TEST(BodyFieldsTest, KeepsTheTypeAndLengthOfWhatIsTooLongToBeKept) {
  const std::string digits(1000, '1');
  EXPECT_EQ(*One('"' + digits + '"'), field(Type::kString, "", 1002));
  EXPECT_EQ(*One(digits), field(Type::kNumber, "", 1000));
  EXPECT_EQ(*One(digits.substr(0, 128)), field(Type::kNumber, digits.substr(0, 128), 128));
  EXPECT_EQ(*One(std::string(1000, 't')), BodyField{});
  EXPECT_EQ(*One('"' + digits + R"(\\\"\u12)" + '"'), field(Type::kString, "", 1010));
  EXPECT_EQ(*One('[' + digits + ']'), field(Type::kArray, "", 1002));
}

TEST(BodyFieldsTest, KeepsTheLengthOfStringsThatAreNoText) {
  EXPECT_EQ(*One(R"("\ud83d\ude00")"), field(Type::kString, "", 14));
  EXPECT_EQ(*One(R"("a\ud83db")"), field(Type::kString, "", 10));
  EXPECT_EQ(*One(R"("a\q\"b")"), field(Type::kString, "", 8));
  EXPECT_EQ(*One(R"("a\u12")"), field(Type::kString, "", 7));
  EXPECT_EQ(*One(R"("a\u12\"b")"), field(Type::kString, "", 10));
}

TEST(BodyFieldsTest, FindsTheSameWhateverElseIsWanted) {
  const std::vector<std::string_view> names = {"a", "b", "c", "d"};
  const std::string body = R"({"a":1"b","b":"\q\"}","c":[{]],"d":2})";
  Reading all(names);
  all.feed(body);
  EXPECT_EQ(all[3], field(Type::kNumber, "2", 1));
  for (size_t i = 0; i < names.size(); ++i) {
    Reading one({names[i]});
    one.feed(body);
    EXPECT_EQ(one[0], all[i]) << names[i];
  }
}

TEST(BodyFieldsTest, NeverFindsNamesThatAreTooLongOrTooMany) {
  const std::string longest(BodyFields::kMaxNameBytes, 'n');
  const std::string longer = longest + 'n';
  Reading lengths({longest, longer});
  lengths.feed("{\"" + longer + "\":1,\"" + longest + "\":2}");
  EXPECT_EQ(lengths[0], field(Type::kNumber, "2", 1));
  EXPECT_EQ(lengths[1], BodyField{});

  const std::string alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFG";
  std::vector<std::string_view> names;
  std::string body = "{";
  for (size_t i = 0; i < alphabet.size(); ++i) {
    names.push_back(std::string_view(alphabet).substr(i, 1));
    body += '"' + std::string(names[i]) + "\":1,";
  }
  Reading many(names);
  EXPECT_TRUE(many.feed(body + "\"\":0}"));
  EXPECT_EQ(many[31].type, Type::kNumber);
  EXPECT_EQ(many[32], BodyField{});
}

TEST(BodyFieldsTest, SurvivesAnyDepth) {
  const std::string deep(1'000'000, '[');
  EXPECT_EQ(model("{\"a\":" + deep + std::string(deep.size(), ']') + ",\"model\":\"x\"}"), "x");
  EXPECT_EQ(model("{\"a\":" + deep + ",\"model\":\"x\"}"), "");
  EXPECT_EQ(*One(deep + std::string(deep.size(), '}')), field(Type::kArray, "", 2'000'000));
  EXPECT_EQ(*One(deep), BodyField{});
}

TEST(BodyFieldsTest, GivesTheSameWhereverTheBodyIsCut) {
  expect_same_wherever_cut({"model", "q", "p", "n", "t", "z"},
                           "{\"p\":\"a\\\"b\\\\\",\"q\":[\"}\",{}],\"mod\\u0065l\":\"x\\u00e9y\","
                           "\"n\" : -0.5e3 ,\"t\":true,\"no\":[0,\"\\\\\\\"\"]}");
  expect_same_wherever_cut({"a", "b"}, R"({"a":"\q\"\\","b":"\u12\"","c":1})");
  expect_same_wherever_cut({"a", "b"}, "{\"a\":\"" + std::string(140, 'x') + "\",\"b\":1}");
}

double number(const std::string& value) { return number_of(*One(value)); }

TEST(NumberOfTest, TakesNumbersAndBooleansAsTheyAre) {
  EXPECT_EQ(number("30"), 30);
  EXPECT_EQ(number("-0.5"), -0.5);
  EXPECT_EQ(number("1e3"), 1000);
  EXPECT_EQ(number("1E+2"), 100);
  EXPECT_EQ(number("true"), 1);
  EXPECT_EQ(number("false"), 0);
}

TEST(NumberOfTest, ReadsNumbersAndSizesFromStrings) {
  EXPECT_EQ(number(R"("30")"), 30);
  EXPECT_EQ(number(R"("-1.5")"), -1.5);
  EXPECT_EQ(number(R"("1024x1024")"), 1048576);
  EXPECT_EQ(number(R"("1024\u00781536")"), 1024 * 1536);
}

TEST(NumberOfTest, IsNaNForAllElse) {
  for (const char* value : {"null", "[1]", "{}", R"("")", R"("auto")", R"("inf")", R"("nan")",
                            R"("-inf")", R"("0x")", R"("x1")", R"("2y2")", R"("1x1x1")",
                            R"("1x-1")", R"("1.5x2")", R"(" 30")", R"("30 ")", R"("+30")"}) {
    EXPECT_TRUE(std::isnan(number(value))) << value;
  }
  EXPECT_TRUE(std::isnan(number_of(BodyField{})));
}

TEST(NumberOfTest, IsInfinityForNumbersItCannotHold) {
  EXPECT_EQ(number("1e999"), INFINITY);
  EXPECT_EQ(number("5000000." + std::string(200, '0')), INFINITY);
}

TEST(BodyFieldsTest, PicturesAndSoundsAreCountedAndTheirBytesTold) {
  const auto media_of = [](const std::string& value) {
    const BodyField whole = *One(value);
    const std::string body = R"({"v":)" + value + "}";
    for (size_t cut = 0; cut <= body.size(); ++cut) {
      Reading halves({"v"});
      halves.feed(std::string_view(body).substr(0, cut));
      halves.feed(std::string_view(body).substr(cut));
      EXPECT_EQ(halves[0].media, whole.media) << cut;
      EXPECT_EQ(halves[0].media_bytes, whole.media_bytes) << cut;
    }
    return std::pair(whole.media, whole.media_bytes);
  };
  using Media = std::pair<uint64_t, uint64_t>;
  EXPECT_EQ(media_of(R"([{"image_url":"12345678"}])"), Media(1, 10));
  EXPECT_EQ(media_of(R"([{"image_url" : {"url": "1\"2]"} , "type":"x"}])"), Media(1, 15));
  EXPECT_EQ(media_of(R"([{"a":[{"input_audio":{"data":"1","b":[{}]}}]},{"file_data":"2"}])"),
            Media(2, 21 + 3));
  EXPECT_EQ(media_of(R"([{"image_url":null},{"image_url":1},"image_url",{"x":"image_url"}])"),
            Media(0, 0));
  EXPECT_EQ(media_of(R"([{"image_url":{"image_url":"1"}}])"), Media(1, 17));
  EXPECT_EQ(media_of(R"("image_url")"), Media(0, 0));
  EXPECT_EQ(media_of(R"([{"image\u005furl":"1"},{"image_urls":"1"},{"xinput_audio":"1"}])"),
            Media(0, 0));
}

TEST(BodyFieldsTest, TellsOfANameInLettersOfAnotherCase) {
  const auto alike = [](std::string_view body) {
    static constexpr std::string_view kNames[] = {"model", "max_tokens", "imageSize"};
    BodyFields fields(kNames);
    for (size_t i = 0; i < body.size(); ++i) {
      fields.feed(body.substr(i, 1));
    }
    return std::string(fields.alike());
  };
  EXPECT_EQ(alike(R"({"model":"a","max_tokens":1,"imageSize":2,"modal":3,"Mode":4})"), "");
  EXPECT_EQ(alike(R"({"model":"a","Model":"b"})"), "model");
  EXPECT_EQ(alike(R"({"MAX_\u0054OKENS":1})"), "max_tokens");
  EXPECT_EQ(alike(R"({"max_to\u212aens":1})"), "max_tokens");
  EXPECT_EQ(alike("{\"max_token\xC5\xBF\":1}"), "max_tokens");
  EXPECT_EQ(alike(R"({"imagesize":1})"), "imageSize");
  EXPECT_EQ(alike(R"({"a":{"Model":"b"},"b":["Model"]})"), "");
}

}  // namespace
}  // namespace penstock::http
