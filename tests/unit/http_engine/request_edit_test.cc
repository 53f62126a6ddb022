#include "worker/engines/http/request_edit.h"

#include <gtest/gtest.h>

#include "worker/engines/http/top_fields.h"

namespace penstock::http_engine {
namespace {

class RequestEditTest : public ::testing::Test {
 protected:
  Options options;

  RequestEditTest() { options.url = *parse_url("http://h:1"); }

  std::unique_ptr<Call> edit(const std::string& body, const std::string& override = "",
                             const char* path = "/v1/chat/completions") {
    auto edited = edit_request({.method = "POST",
                                .path = path,
                                .content_type = "application/json",
                                .model = "m",
                                .body = body,
                                .override = override},
                               options);
    auto* const failure = std::get_if<Failure>(&edited);
    EXPECT_EQ(failure, nullptr) << failure->message;
    return failure != nullptr ? nullptr : std::get<std::unique_ptr<Call>>(std::move(edited));
  }
  int refused(const std::string& body, const std::string& override = "") {
    auto edited = edit_request({.method = "POST",
                                .path = "/v1/completions",
                                .content_type = "application/json; charset=utf-8",
                                .body = body,
                                .override = override},
                               options);
    const auto* const failure = std::get_if<Failure>(&edited);
    return failure == nullptr ? 0 : failure->status;
  }
};

TEST_F(RequestEditTest, WhatNeedsNoChangeIsNotChanged) {
  const std::string body = " {\"model\" : \"m\",\n \"messages\": [ {\"x\":\"\\\"}\"} ] }\n";
  EXPECT_EQ(edit(body)->body, body);
}

TEST_F(RequestEditTest, TheModelIsCalledWhatTheServerCallsIt) {
  options.upstream_model = "org/\"x";
  EXPECT_EQ(edit(R"({ "model" : "m" , "n":1})")->body, R"({ "model" : "org/\"x" , "n":1})");
  EXPECT_EQ(edit("{}")->body, R"({"model":"org/\"x"})");
  EXPECT_EQ(edit(R"({"model":"a","b":1,"model":"m"})")->body,
            R"({"model":"org/\"x","b":1,"model":"org/\"x"})");
}

TEST_F(RequestEditTest, TheModelOfTheJobWinsOverTheBodys) {
  EXPECT_EQ(edit(R"({"model":"other"})")->body, R"({"model":"m"})");
}

TEST_F(RequestEditTest, TheUsageOfAStreamIsAskedFor) {
  EXPECT_EQ(edit(R"({"stream":true})")->body,
            R"({"stream":true,"stream_options":{"include_usage":true}})");
  EXPECT_EQ(edit(R"({"stream":true,"stream_options":null})")->body,
            R"({"stream":true,"stream_options":{"include_usage":true}})");
  EXPECT_EQ(edit(R"({"stream_options":{"a":1},"stream":true})")->body,
            R"({"stream_options":{"a":1,"include_usage":true},"stream":true})");
  EXPECT_EQ(edit(R"({"stream_options":{"include_usage":false},"stream":true})")->body,
            R"({"stream_options":{"include_usage":true},"stream":true})");
  EXPECT_TRUE(edit(R"({"stream":true})")->hides_usage);
  const auto asked = edit(R"({"stream":true,"stream_options":{"include_usage":true}})");
  EXPECT_FALSE(asked->hides_usage);
  EXPECT_EQ(asked->body, R"({"stream":true,"stream_options":{"include_usage":true}})");
  EXPECT_EQ(edit(R"({"stream":false})")->body, R"({"stream":false})");
  EXPECT_EQ(edit(R"({"stream":true})", "", "/v1/messages")->body, R"({"stream":true})");
}

TEST_F(RequestEditTest, TheOverridesFieldsTakeThePlaceOfTheBodys) {
  EXPECT_EQ(edit(R"({"temperature":1,"a":[1,{}]})", R"({"temperature":0.5,"b":{"c":"}"}})")->body,
            R"({"temperature":0.5,"a":[1,{}],"b":{"c":"}"}})");
}

TEST_F(RequestEditTest, AnOverrideOnlyLowersTheBoundOnTokens) {
  const std::string bound = R"({"max_tokens":100})";
  EXPECT_EQ(edit(R"({"max_tokens":500})", bound)->body, R"({"max_tokens":100})");
  EXPECT_EQ(edit(R"({"max_tokens":5})", bound)->body, R"({"max_tokens":5})");
  EXPECT_EQ(edit(R"({"max_completion_tokens":500})", bound)->body,
            R"({"max_completion_tokens":100})");
  EXPECT_EQ(edit("{}", bound)->body, R"({"max_tokens":100})");
}

TEST_F(RequestEditTest, WhatIsNoWholeObjectIsRefused) {
  for (const char* const body : {"", "[]", "{\"a\":1", "{\"a\":1} x", "nonsense", "{\"a\":\"}"}) {
    EXPECT_EQ(refused(body), 400) << body;
  }
  EXPECT_EQ(refused("{}", "[]"), 400);
  EXPECT_EQ(refused("{}"), 0);
}

TEST_F(RequestEditTest, WhatIsNoJsonPassesAsItIs) {
  options.protocol = Protocol::kPlain;
  options.upstream_model = "x";
  EXPECT_EQ(edit("anything")->body, "anything");
}

TEST_F(RequestEditTest, OnlyWhatGeneratesMayBeSentAgain) {
  EXPECT_TRUE(edit("{}")->may_resend);
  EXPECT_FALSE(edit("{}", "", "/v1/responses")->may_resend);
  EXPECT_TRUE(edit(R"({"store":false})", "", "/v1/responses")->may_resend);
  options.protocol = Protocol::kPlain;
  EXPECT_FALSE(edit("{}")->may_resend);
}

TEST(UrlTest, PathsAreBelowTheUrlOnce) {
  const auto of = [](const char* url, const char* path) { return parse_url(url)->of(path); };
  EXPECT_EQ(of("http://h:1", "/v1/models"), "http://h:1/v1/models");
  EXPECT_EQ(of("http://h:1/v1/", "/v1/models"), "http://h:1/v1/models");
  EXPECT_EQ(of("http://h:1/api/v1", "/v1/models"), "http://h:1/api/v1/models");
  EXPECT_EQ(of("http://h:1/v1", "/v10/models"), "http://h:1/v1/v10/models");
  EXPECT_EQ(of("https://h/x?api-version=1", "/v1/a b%"), "https://h/x/v1/a%20b%25?api-version=1");
  EXPECT_EQ(of("unix:/run/a.sock", "/v1"), "http://localhost/v1");
  EXPECT_EQ(parse_url("unix:/run/a.sock")->shown("/v1"), "unix:/run/a.sock/v1");
  EXPECT_EQ(parse_url("https://h/x?key=secret")->shown("/v1"), "https://h/x/v1");
  EXPECT_EQ(of("unix:/run/a.sock:/v1", "/v1/x"), "http://localhost/v1/x");
}

TEST(UrlTest, WhatIsNoUrlIsRefused) {
  for (const char* const url :
       {"", "h:1", "ftp://h", "http://", "http://u:p@h", "unix:run", "http://a b"}) {
    EXPECT_FALSE(parse_url(url)) << url;
  }
}

TEST(TopFieldsTest, FieldsAreTheSameWhereverTheJsonIsCut) {
  const std::string json =
      "\xEF\xBB\xBF { \"a\\\"\" : \"x\\\\\" , \"b\":[1,{\"c\":\"}]\"}] ,\"d\": -1.5e3 }";
  for (size_t piece = 1; piece <= json.size(); ++piece) {
    TopFields fields;
    for (size_t at = 0; at < json.size(); at += piece) {
      fields.feed(std::string_view(json).substr(at, piece));
    }
    ASSERT_EQ(fields.fields().size(), 3U) << piece;
    EXPECT_EQ(fields.fields()[0].name, "a\\\"");
    EXPECT_EQ(fields.fields()[0].text, "\"x\\\\\"");
    EXPECT_EQ(fields.fields()[1].text, "[1,{\"c\":\"}]\"}]");
    EXPECT_EQ(fields.fields()[2].text, "-1.5e3");
    EXPECT_EQ(
        json.substr(fields.fields()[1].value, fields.fields()[1].end - fields.fields()[1].value),
        "[1,{\"c\":\"}]\"}]");
    EXPECT_EQ(fields.closed_at(), json.size() - 1);
  }
}

TEST(TopFieldsTest, AValueThatIsMissingIsEmpty) {
  TopFields fields;
  fields.feed("{\"a\": }");
  EXPECT_EQ(fields.fields()[0].value, 6U);
  EXPECT_EQ(fields.fields()[0].end, 6U);
}

TEST(TopFieldsTest, LargeValuesArePassedAndWhatFollowsIsKept) {
  TopFields fields;
  fields.feed("{\"data\":[{\"b64\":\"");
  for (int i = 0; i < 1000; ++i) {
    fields.feed(std::string(1000, 'x') + "\\\"");
  }
  fields.feed("\"}],\"usage\":{\"a\":1}}");
  EXPECT_EQ(fields.find("data")->text, "");
  EXPECT_EQ(fields.find("usage")->text, "{\"a\":1}");
}

}  // namespace
}  // namespace penstock::http_engine
