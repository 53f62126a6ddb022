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
  std::unique_ptr<Call> edit_form(const std::string& body) {
    auto edited = edit_request({.method = "POST",
                                .path = "/v1/audio/transcriptions",
                                .content_type = "multipart/form-data; boundary=b",
                                .model = "m",
                                .body = body},
                               options);
    return std::get<std::unique_ptr<Call>>(std::move(edited));
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
  EXPECT_EQ(edit(body)->text, body);
}

TEST_F(RequestEditTest, TheModelIsCalledWhatTheServerCallsIt) {
  options.upstream_model = "org/\"x";
  EXPECT_EQ(edit(R"({ "model" : "m" , "n":1})")->text, R"({ "model" : "org/\"x" , "n":1})");
  EXPECT_EQ(edit("{}")->text, R"({"model":"org/\"x"})");
  EXPECT_EQ(edit(R"({"model":"a","b":1,"model":"m"})")->text,
            R"({"model":"org/\"x","b":1,"model":"org/\"x"})");
}

TEST_F(RequestEditTest, TheModelOfTheJobWinsOverTheBodys) {
  EXPECT_EQ(edit(R"({"model":"other"})")->text, R"({"model":"m"})");
}

TEST_F(RequestEditTest, TheUsageOfAStreamIsAskedFor) {
  EXPECT_EQ(edit(R"({"stream":true})")->text,
            R"({"stream":true,"stream_options":{"include_usage":true}})");
  EXPECT_EQ(edit(R"({"stream":true,"stream_options":null})")->text,
            R"({"stream":true,"stream_options":{"include_usage":true}})");
  EXPECT_EQ(edit(R"({"stream_options":{"a":1},"stream":true})")->text,
            R"({"stream_options":{"a":1,"include_usage":true},"stream":true})");
  EXPECT_EQ(edit(R"({"stream_options":{"include_usage":false},"stream":true})")->text,
            R"({"stream_options":{"include_usage":true},"stream":true})");
  EXPECT_TRUE(edit(R"({"stream":true})")->hides_usage);
  const auto asked = edit(R"({"stream":true,"stream_options":{"include_usage":true}})");
  EXPECT_FALSE(asked->hides_usage);
  EXPECT_EQ(asked->text, R"({"stream":true,"stream_options":{"include_usage":true}})");
  EXPECT_EQ(edit(R"({"stream":false})")->text, R"({"stream":false})");
  EXPECT_EQ(edit(R"({"stream":true})", "", "/v1/messages")->text, R"({"stream":true})");
}

TEST_F(RequestEditTest, TheOverridesFieldsTakeThePlaceOfTheBodys) {
  EXPECT_EQ(edit(R"({"temperature":1,"a":[1,{}]})", R"({"temperature":0.5,"b":{"c":"}"}})")->text,
            R"({"temperature":0.5,"a":[1,{}],"b":{"c":"}"}})");
}

TEST_F(RequestEditTest, AnOverrideOnlyLowersTheBoundOnTokens) {
  const std::string bound = R"({"max_tokens":100})";
  EXPECT_EQ(edit(R"({"max_tokens":500})", bound)->text, R"({"max_tokens":100})");
  EXPECT_EQ(edit(R"({"max_tokens":5})", bound)->text, R"({"max_tokens":5})");
  EXPECT_EQ(edit(R"({"max_completion_tokens":500})", bound)->text,
            R"({"max_completion_tokens":100})");
  EXPECT_EQ(edit("{}", bound)->text, R"({"max_tokens":100})");
}

TEST_F(RequestEditTest, ALargeBodyIsSentInPiecesOfItself) {
  options.upstream_model = "theirs";
  const std::string body = R"({"model":"m","stream":true,"prompt":"long","model":"m"})";
  const auto whole = edit(body, R"({"max_tokens":5})");
  auto edited = edit_request({.method = "POST",
                              .path = "/v1/chat/completions",
                              .content_type = "application/json",
                              .model = "m",
                              .body = body,
                              .storage = std::make_shared<int>(),
                              .override = R"({"max_tokens":5})"},
                             options);
  const auto call = std::get<std::unique_ptr<Call>>(std::move(edited));
  std::string joined;
  size_t views = 0;
  for (const std::string_view piece : call->body) {
    joined += piece;
    views += piece.data() >= body.data() && piece.data() <= body.data() + body.size() ? 1 : 0;
  }
  EXPECT_EQ(joined, whole->text);
  EXPECT_EQ(views, 4U);
  EXPECT_NE(call->storage, nullptr);
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
  EXPECT_EQ(edit("anything")->text, "anything");
}

TEST_F(RequestEditTest, TheModelOfAFormIsCalledWhatTheServerCallsIt) {
  const std::string name = "Content-Disposition: form-data; name=\"model\"\r\n\r\n";
  const std::string file =
      "--b\r\nContent-Disposition: form-data; name=\"file\"; "
      "filename=\"a.wav\"\r\n\r\nRIFF\n--\r\n";
  const auto edited = [&](const std::string& body) { return edit_form(body)->text; };
  const auto form = [&](const std::string& model) {
    return file + "--b\r\n" + name + model + "\r\n--b--\r\n";
  };
  EXPECT_EQ(edited(form("m")), form("m"));
  EXPECT_EQ(edited(form("other")), form("m"));  // the job's wins
  EXPECT_EQ(edited(file + "--b--\r\n"), file + "--b--\r\n");
  options.upstream_model = "org/whisper";
  EXPECT_EQ(edited(form("m")), form("org/whisper"));
  EXPECT_EQ(edited(form("")), form("org/whisper"));
  EXPECT_EQ(edited(file + "--b--\r\n"), "--b\r\n" + name + "org/whisper\r\n" + file + "--b--\r\n");
  EXPECT_EQ(edited("no form"), "--b\r\n" + name + "org/whisper\r\nno form");
}

TEST_F(RequestEditTest, AKservePathNamesTheModelAsTheServerDoes) {
  options.protocol = Protocol::kKserve;
  EXPECT_EQ(edit("{}", "", "/v2/models/m/infer")->url, "http://h:1/v2/models/m/infer");
  options.upstream_model = "resnet50";
  EXPECT_EQ(edit("{}", "", "/v2/models/m/infer")->url, "http://h:1/v2/models/resnet50/infer");
  EXPECT_EQ(edit("{}", "", "/v2/models/m/versions/3/generate")->shown,
            "http://h:1/v2/models/resnet50/versions/3/generate");
  EXPECT_EQ(edit("{}", "", "/v2/models/m")->url, "http://h:1/v2/models/resnet50");
  EXPECT_EQ(edit("{}", "", "/v2/health")->url, "http://h:1/v2/health");
}

TEST_F(RequestEditTest, OfTheCallersHeadersOnlyThoseOfTheListGoOn) {
  const auto headers = [&](std::string_view lines, const char* path = "/v1/embeddings") {
    auto edited =
        edit_request({.method = "POST", .path = path, .headers = lines, .body = "{}"}, options);
    return std::get<std::unique_ptr<Call>>(std::move(edited))->headers;
  };
  using Lines = std::vector<std::string>;
  EXPECT_EQ(headers("openai-beta: a=v1\nAuthorization: Bearer k\ncookie: c\nTraceParent: 00-1\n"),
            Lines{"openai-beta: a=v1"});
  EXPECT_EQ(headers("x-request-id: 1\rX: 2\n"), Lines{});
  EXPECT_EQ(headers("", "/v1/messages"), Lines{"anthropic-version: 2023-06-01"});
  EXPECT_EQ(headers("anthropic-version: 2024\n", "/v1/messages"), Lines{"anthropic-version: 2024"});
  options.headers = {"Anthropic-Version: ours", "x-request-id: ours"};
  EXPECT_EQ(headers("anthropic-version: 2024\nx-request-id: theirs\n", "/v1/messages"), Lines{});
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

TEST(UrlTest, WhatACallerAsksBehindThePathGoesOn) {
  const auto of = [](const char* url, const char* asked) {
    return parse_url(url)->of("/v1", asked);
  };
  EXPECT_EQ(of("http://h", "beta=true&a=%20?"), "http://h/v1?beta=true&a=%20?");
  EXPECT_EQ(of("http://h?api-version=1", "beta=true"), "http://h/v1?api-version=1&beta=true");
  EXPECT_EQ(of("http://h", "a=\" #\x80"), "http://h/v1?a=%22%20%23%80");
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

TEST_F(RequestEditTest, NoEscapeHidesANameFromWhatIsEdited) {
  for (const char* const name :
       {R"(max_t\u006fkens)", R"(\u006Dodel)", R"(to\u212Aens)", R"(token\u017f)"}) {
    EXPECT_EQ(refused("{\"max_tokens\":10,\"" + std::string(name) + "\":100000}"), 400) << name;
  }
  for (const char* const name : {R"(gr\u00f6\u00dfe)", R"(a\\u006f)", R"(a\"b)", R"(a\n)"}) {
    EXPECT_EQ(refused("{\"" + std::string(name) + "\":1}"), 0) << name;
  }
}

}  // namespace
}  // namespace penstock::http_engine
