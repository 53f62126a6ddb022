#include <gtest/gtest.h>

#include "worker/pool/openai.h"

namespace penstock::openai {
namespace {

Request post(std::string_view path, std::string_view body) {
  return {.method = "POST", .path = path, .content_type = "application/json", .body = body};
}

CompletionRequest good(std::string_view path, std::string_view body) {
  Parsed parsed = parse(post(path, body));
  if (const auto* failure = std::get_if<Failure>(&parsed)) {
    ADD_FAILURE() << body << "\n  " << failure->message;
    return {};
  }
  return std::get<CompletionRequest>(parsed);
}
CompletionRequest good_text(std::string_view body) { return good("/v1/completions", body); }
CompletionRequest good_chat(std::string_view body) { return good("/v1/chat/completions", body); }

Failure bad(std::string_view path, std::string_view body) {
  Parsed parsed = parse(post(path, body));
  if (!std::holds_alternative<Failure>(parsed)) {
    ADD_FAILURE() << "was accepted: " << body;
    return {};
  }
  return std::get<Failure>(parsed);
}

// The body of a text completion with one more field.
std::string with(std::string_view field) { return "{\"prompt\":\"x\"," + std::string(field) + "}"; }
std::string chat_with(std::string_view field) {
  return "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]," + std::string(field) + "}";
}

TEST(OpenaiParseTest, ReadsEveryFieldOfACompletion) {
  const auto request = good_text(
      R"({"model":"m","prompt":"caf\u00e9 \ud83d\ude00","max_tokens":7,"temperature":0.5,"top_p":0.25,
          "seed":42,"stop":["a","b\n"],"stream":true,"stream_options":{"include_usage":true},
          "ignore_eos":true})");
  EXPECT_FALSE(request.chat);
  EXPECT_EQ(request.prompt, "café 😀");
  EXPECT_EQ(request.max_tokens, 7U);
  EXPECT_EQ(request.sampling.temperature, 0.5F);
  EXPECT_EQ(request.sampling.top_p, 0.25F);
  EXPECT_EQ(request.seed, 42U);
  EXPECT_EQ(request.stop, (std::vector<std::string>{"a", "b\n"}));
  EXPECT_TRUE(request.stream && request.include_usage && request.ignore_eos);
}

TEST(OpenaiParseTest, ReadsMessagesOfEveryKindOfContent) {
  const auto request = good_chat(
      R"({"messages":[{"role":"system","content":"Be brief."},{"role":"developer","content":[]},
          {"role":"user","name":"u","content":[{"type":"text","text":"a"},{"text":"b","type":"text"}]},
          {"role":"assistant","content":null,"tool_calls":[]},{"role":"assistant"}],
          "max_tokens":5,"max_completion_tokens":6})");
  EXPECT_TRUE(request.chat);
  ASSERT_EQ(request.messages.size(), 5U);
  EXPECT_EQ(request.messages[0].role, "system");
  EXPECT_EQ(request.messages[0].content, "Be brief.");
  EXPECT_EQ(request.messages[2].content, "ab");
  EXPECT_EQ(request.messages[3].content, "");
  EXPECT_EQ(request.max_tokens, 6U) << "max_completion_tokens is the newer name and wins";
}

TEST(OpenaiParseTest, DefaultsAreThoseOfTheApi) {
  const auto request = good_text(R"({"prompt":["one"]})");
  EXPECT_EQ(request.prompt, "one");
  EXPECT_FALSE(request.max_tokens.has_value());
  EXPECT_FALSE(request.seed.has_value());
  EXPECT_FALSE(request.sampling.temperature.has_value()) << "the model's own may say";
  EXPECT_FALSE(request.sampling.top_p.has_value());
  EXPECT_TRUE(request.stop.empty());
  EXPECT_FALSE(request.stream || request.include_usage || request.ignore_eos);
}

TEST(OpenaiParseTest, NullIsAbsentAndWhatChangesNothingPasses) {
  for (const char* field : {R"("max_tokens":null)",
                            R"("temperature":null)",
                            R"("stop":null)",
                            R"("stream":null)",
                            R"("stream_options":null)",
                            R"("logprobs":null)",
                            R"("seed":null)",
                            R"("n":null)",
                            R"("logit_bias":{})",
                            R"("echo":false)",
                            R"("suffix":"")",
                            R"("best_of":1)",
                            R"("n":1)",
                            R"("frequency_penalty":0)",
                            R"("presence_penalty":-0.0e5)",
                            R"("user":"u")",
                            R"("stop":[])",
                            R"("metadata":{"a":[1,2.5e3,true,null,{"b":"\u0000"}]})",
                            R"("store":true)",
                            R"("service_tier":"auto")",
                            R"("prompt_cache_key":{"x":123456789012345678901234567890})",
                            R"("request_id":7)",
                            R"("skip_special_tokens":true)",
                            R"("guided_json":null)",
                            R"("guided_choice":[])",
                            R"("bad_words":[])",
                            R"("use_beam_search":false)",
                            R"("max_token":null)",
                            R"("messages":null)"}) {
    EXPECT_EQ(good_text(with(field)).prompt, "x") << field;
  }
  for (const char* field :
       {R"("tools":[])", R"("tool_choice":"auto")", R"("response_format":{"type":"text"})",
        R"("logprobs":false)", R"("top_logprobs":0)", R"("modalities":["text"])",
        R"("tool_choice":"none")", R"("prediction":{"type":"content","content":"x"})",
        R"("safety_identifier":"s")",
        R"("stream":true,"stream_options":{"include_obfuscation":false})",
        R"("parallel_tool_calls":true)", R"("audio":null)"}) {
    EXPECT_EQ(good_chat(chat_with(field)).messages.size(), 1U) << field;
  }
}

TEST(OpenaiParseTest, OfSeveralFieldsOfOneNameTheLastCountsWhateverTheOthersWere) {
  EXPECT_EQ(good_text(R"({"prompt":"a","prompt":["b"]})").prompt, "b");
  EXPECT_EQ(good_text(with(R"("max_tokens":3,"max_tokens":90)")).max_tokens, 90U);
  EXPECT_EQ(good_text(with(R"("max_tokens":0,"max\u005ftokens":"x","max_tokens":9)")).max_tokens,
            9U);
  EXPECT_EQ(good_text(with(R"("stop":["a",""],"n":[1,[2]],"stop":"b","n":1)")).stop,
            std::vector<std::string>{"b"});
  EXPECT_EQ(good_text(with(R"("seed":1,"seed":null)")).seed, std::nullopt);
  EXPECT_EQ(good_text(with(R"("seed":1,"seed":null,"seed":2)")).seed, 2U);
  EXPECT_FALSE(good_text(with(R"("stream":true,"stream_options":{"include_usage":true},
      "stream_options":{"include_usage":true,"include_usage":null})"))
                   .include_usage);
  EXPECT_EQ(bad("/v1/completions", R"({"prompt":"a","prompt":null})").message,
            "prompt is missing.");
  EXPECT_EQ(bad("/v1/completions", with(R"("n":1,"n":2)")).param, "n");
  const auto chat = good_chat(
      R"({"messages":"none","messages":[{"role":5,"role":"wizard","role":"user","content":[{}],
          "content":"x","content":[{"type":"image","type":"text","text":"a","text":"b"}]}]})");
  EXPECT_EQ(chat.messages.at(0).role, "user");
  EXPECT_EQ(chat.messages.at(0).content, "b");
  EXPECT_EQ(
      bad("/v1/chat/completions", R"({"messages":[{"role":"user","content":"x","content":null}]})")
          .param,
      "messages[0].content");
}

TEST(OpenaiParseTest, WhatCountsNoMoreMustStillBeJson) {
  EXPECT_EQ(bad("/v1/completions", with(R"("n":[tru],"n":1)")).message,
            "The body is not valid JSON: a word that is not true, false or null at byte 19.");
  const auto wrong = [](int times) {
    std::string body = "{\"prompt\":\"x\"";
    for (int i = 0; i < times; ++i) {
      body += ",\"n\":{\"a\":[]}";
    }
    return body;
  };
  EXPECT_EQ(good_text(wrong(50) + ",\"n\":1}").prompt, "x");
  EXPECT_EQ(bad("/v1/completions", wrong(50) + "}").param, "n");
  EXPECT_EQ(bad("/v1/completions", wrong(1'000'000) + ",\"n\":1}").param, "n")
      << "past some, nobody looks on";
}

TEST(OpenaiParseTest, AFieldThatIsNobodysIsRefusedWithTheNearestThatIsKnown) {
  for (const auto& [field, nearest] : {std::pair{R"("max_token":3)", "max_tokens"},
                                       {R"("Temperature":1)", "temperature"},
                                       {R"("top-k":1)", "top_k"},
                                       {R"("logprob":3)", "logprobs"},
                                       {R"("stopp":"a")", "stop"}}) {
    for (const bool chat : {false, true}) {
      const Failure failure = chat ? bad("/v1/chat/completions", chat_with(field))
                                   : bad("/v1/completions", with(field));
      const std::string name = std::string(field).substr(1, std::string(field).find('"', 1) - 1);
      EXPECT_EQ(failure.param, name);
      EXPECT_EQ(failure.message,
                "'" + name + "' is no field known here; the nearest that is: " + nearest + ".");
    }
  }
  EXPECT_EQ(bad("/v1/completions", with(R"("messages":[])")).param, "messages");
  EXPECT_EQ(
      bad("/v1/completions", with(R"("stream":true,"stream_options":{"include_usages":true})"))
          .message,
      "'stream_options.include_usages' is no field known here; the nearest that is: "
      "stream_options.include_usage.");
}

Parsed parse_by(Rules rules, std::string_view body) {
  return parse(post("/v1/completions", body), rules);
}

TEST(OpenaiParseTest, WhereTheOperatorIsLenientWhatIsNobodysIsPassedOverAndNothingElse) {
  const Rules lenient{.lenient = true};
  EXPECT_TRUE(std::holds_alternative<CompletionRequest>(
      parse_by(lenient, with(R"("max_token":3,"x":{"y":[1]})"))));
  EXPECT_FALSE(
      std::holds_alternative<CompletionRequest>(parse_by(lenient, with(R"("x":{"y":tru})"))));
  EXPECT_EQ(std::get<Failure>(parse_by(lenient, with(R"("guided_json":{"type":"object"})"))).param,
            "guided_json");
}

TEST(OpenaiParseTest, EverySettingOfTheDrawIsRead) {
  const auto request = good_text(with(
      R"("top_k":40,"min_p":0.25,"repetition_penalty":1.5,"min_tokens":3,"stop_token_ids":[7,0],
             "logprobs":0)"));
  EXPECT_EQ(request.sampling.top_k, 40);
  EXPECT_EQ(request.sampling.min_p, 0.25F);
  EXPECT_EQ(request.sampling.repetition_penalty, 1.5F);
  EXPECT_EQ(request.min_tokens, 3U);
  EXPECT_EQ(request.stop_token_ids, (std::vector<int32_t>{7, 0}));
  EXPECT_TRUE(request.logprobs);
  EXPECT_EQ(good_text(with(R"("top_k":-1)")).sampling.top_k, 0) << "all";
  EXPECT_TRUE(good_chat(chat_with(R"("logprobs":true,"top_logprobs":0)")).logprobs);
  EXPECT_FALSE(good_chat(chat_with(R"("logprobs":false)")).logprobs);
}

TEST(OpenaiParseTest, WhatShiftsSingleTokensIsTheOperatorsToAllow) {
  const std::string body =
      with(R"("logit_bias":{"5":-100,"6":1,"6":2.5},"presence_penalty":1,"frequency_penalty":-2)");
  EXPECT_EQ(std::get<Failure>(parse_by({}, body)).param, "logit_bias");
  const Parsed parsed = parse_by({.steering = true}, body);
  ASSERT_TRUE(std::holds_alternative<CompletionRequest>(parsed));
  const auto& request = std::get<CompletionRequest>(parsed);
  ASSERT_EQ(request.logit_bias.size(), 2U);
  EXPECT_EQ(request.logit_bias[1].token, 6);
  EXPECT_EQ(request.logit_bias[1].bias, 2.5F) << "of two the last one counts";
  EXPECT_EQ(request.presence_penalty, 1);
  EXPECT_EQ(request.frequency_penalty, -2);
  for (const char* biases :
       {R"({"the":1})", R"({"-1":1})", R"({"1.5":1})", R"({"5":101})", R"({"5":"1"})", R"([5])"}) {
    EXPECT_EQ(std::get<Failure>(
                  parse_by({.steering = true}, with("\"logit_bias\":" + std::string(biases))))
                  .param.substr(0, 10),
              "logit_bias")
        << biases;
  }
  std::string many = "{";
  for (size_t i = 0; i <= kMaxBiases; ++i) {
    many += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":1";
  }
  EXPECT_NE(std::get<Failure>(parse_by({.steering = true}, with("\"logit_bias\":" + many + "}")))
                .message.find("at most 1024"),
            std::string::npos);
}

TEST(OpenaiParseTest, EdgesOfTheRangesAreIn) {
  EXPECT_EQ(good_text(with(R"("max_tokens":2147483647)")).max_tokens, 2147483647U);
  EXPECT_EQ(good_text(with(R"("temperature":2)")).sampling.temperature, 2.0F);
  EXPECT_EQ(good_text(with(R"("seed":-1)")).seed, UINT64_MAX);
  EXPECT_EQ(good_text(with(R"("seed":18446744073709551615)")).seed, UINT64_MAX);
  const auto narrowest = good_text(with(R"("top_p":0)"));
  EXPECT_EQ(narrowest.sampling.temperature, 0.0F) << "only the likeliest token is left: greedy";
  EXPECT_GT(narrowest.sampling.top_p, 0.0F);
}

struct Refusal {
  const char* body;
  const char* param;
  const char* message;
};

TEST(OpenaiParseTest, WrongFieldsOfACompletionAreNamed) {
  const Refusal table[] = {
      {R"({})", "prompt", "prompt is missing."},
      {R"({"prompt":null})", "prompt", "prompt is missing."},
      {R"({"prompt":5})", "prompt", "prompt must be a string, not a number."},
      {R"({"prompt":[]})", "prompt", "prompt must hold one string."},
      {R"({"prompt":["a","b"]})", "prompt",
       "prompt must hold one string; send one request for each."},
      {R"({"prompt":[1,2]})", "prompt",
       "prompt must be text; token arrays are not supported here."},
      {R"({"prompt":[[1,2]]})", "prompt",
       "prompt must be text; token arrays are not supported here."},
      {R"({"prompt":[{}]})", "prompt[0]", "prompt[0] must be a string, not an object."},
  };
  for (const Refusal& row : table) {
    const Failure failure = bad("/v1/completions", row.body);
    EXPECT_EQ(failure.status, 400) << row.body;
    EXPECT_EQ(failure.code, "invalid_request") << row.body;
    EXPECT_EQ(failure.param, row.param) << row.body;
    EXPECT_EQ(failure.message, row.message) << row.body;
    EXPECT_FALSE(failure.retryable);
  }
}

TEST(OpenaiParseTest, WrongFieldsOfBothSurfacesAreNamed) {
  const Refusal table[] = {
      {R"("max_tokens":0)", "max_tokens",
       "max_tokens must be an integer between 1 and 2147483647, not 0."},
      {R"("max_tokens":-1)", "max_tokens",
       "max_tokens must be an integer between 1 and 2147483647, not -1."},
      {R"("max_tokens":2147483648)", "max_tokens",
       "max_tokens must be an integer between 1 and 2147483647, not 2147483648."},
      {R"("max_tokens":1.5)", "max_tokens",
       "max_tokens must be an integer between 1 and 2147483647, not 1.5."},
      {R"("max_tokens":"5")", "max_tokens", "max_tokens must be a number, not a string."},
      {R"("temperature":2.01)", "temperature", "temperature must be between 0 and 2, not 2.01."},
      {R"("temperature":-0.5)", "temperature", "temperature must be between 0 and 2, not -0.5."},
      {R"("temperature":1e999)", "temperature", "temperature must be between 0 and 2, not 1e999."},
      {R"("temperature":true)", "temperature", "temperature must be a number, not a boolean."},
      {R"("top_p":1.1)", "top_p", "top_p must be between 0 and 1, not 1.1."},
      {R"("seed":1e3)", "seed", "seed must be an integer of at most 64 bits, not 1e3."},
      {R"("seed":18446744073709551616)", "seed",
       "seed must be an integer of at most 64 bits, not 18446744073709551616."},
      {R"("seed":-9223372036854775809)", "seed",
       "seed must be an integer of at most 64 bits, not -9223372036854775809."},
      {R"("stop":["a","b","c","d","e"])", "stop", "stop must hold at most 4 strings."},
      {R"("stop":"")", "stop", "stop must be of 1 to 1024 bytes, not 0."},
      {R"("stop":["a",""])", "stop", "stop[1] must be of 1 to 1024 bytes, not 0."},
      {R"("stop":[1])", "stop[0]", "stop[0] must be a string, not a number."},
      {R"("stream":"yes")", "stream", "stream must be true or false, not a string."},
      {R"("stream_options":{})", "stream_options",
       "stream_options may only be given with stream: true."},
      {R"("stream":true,"stream_options":[])", "stream_options",
       "stream_options must be an object, not an array."},
      {R"("stream":true,"stream_options":{"include_usage":1})", "stream_options.include_usage",
       "stream_options.include_usage must be true or false, not a number."},
      {R"("n":2)", "n", "n must be 1: one answer is made a request."},
      {R"("n":-1)", "n", "n must be 1: one answer is made a request."},
      {R"("logit_bias":{"50256":-100})", "logit_bias",
       "logit_bias is not supported here. Leave it out."},
      {R"("frequency_penalty":0.1)", "frequency_penalty",
       "frequency_penalty is not supported here. Leave it out."},
      {R"("top_k":-2)", "top_k", "top_k must be an integer between -1 and 2147483647, not -2."},
      {R"("min_p":1.5)", "min_p", "min_p must be between 0 and 1, not 1.5."},
      {R"("repetition_penalty":0)", "repetition_penalty",
       "repetition_penalty must be between 0.01 and 10, not 0."},
      {R"("min_tokens":9,"max_tokens":8)", "min_tokens",
       "min_tokens must be at most max_tokens, 8, not 9."},
      {R"("stop_token_ids":7)", "stop_token_ids",
       "stop_token_ids must be an array of token ids, not a number."},
      {R"("stop_token_ids":[1,-1])", "stop_token_ids[1]",
       "stop_token_ids[1] must be an integer between 0 and 2147483647, not -1."},
      {R"("bad_words":["the"])", "bad_words", "bad_words is not supported here. Leave it out."},
      {R"("skip_special_tokens":false)", "skip_special_tokens",
       "skip_special_tokens is not supported here. Leave it out."},
      {R"("model":5)", "model", "model must be a string, not a number."},
      {R"("response_format":{"type":"json_object"})", "response_format",
       "response_format must be {\"type\":\"text\"}: no other format can be promised here."},
  };
  for (const Refusal& row : table) {
    for (const bool chat : {false, true}) {
      const Failure failure = chat ? bad("/v1/chat/completions", chat_with(row.body))
                                   : bad("/v1/completions", with(row.body));
      EXPECT_EQ(failure.status, 400) << row.body;
      EXPECT_EQ(failure.param, row.param) << row.body;
      EXPECT_EQ(failure.message, row.message) << row.body;
    }
  }
}

TEST(OpenaiParseTest, WrongFieldsOfOneSurfaceAreNamed) {
  for (const auto& [field, param] : {std::pair{R"("echo":true)", "echo"},
                                     {R"("suffix":"s")", "suffix"},
                                     {R"("best_of":3)", "best_of"},
                                     {R"("logprobs":3)", "logprobs"},
                                     {R"("logprobs":true)", "logprobs"}}) {
    EXPECT_EQ(bad("/v1/completions", with(field)).param, param);
  }
  for (const auto& [field, param] : {std::pair{R"("tools":[{"type":"function"}])", "tools"},
                                     {R"("functions":[{}])", "functions"},
                                     {R"("top_logprobs":2)", "top_logprobs"},
                                     {R"("logprobs":0)", "logprobs"},
                                     {R"("tool_choice":"required")", "tool_choice"},
                                     {R"("reasoning_effort":"high")", "reasoning_effort"},
                                     {R"("modalities":["text","audio"])", "modalities"},
                                     {R"("audio":{"voice":"v"})", "audio"}}) {
    EXPECT_EQ(bad("/v1/chat/completions", chat_with(field)).param, param);
  }
}

Parsed parse_overridden(std::string_view path, std::string_view body, std::string_view override) {
  Request request = post(path, body);
  request.model = "small";
  request.override = override;
  return parse(request);
}

CompletionRequest overridden(std::string_view path, std::string_view body,
                             std::string_view override) {
  Parsed parsed = parse_overridden(path, body, override);
  if (const auto* failure = std::get_if<Failure>(&parsed)) {
    ADD_FAILURE() << override << "\n  " << failure->message;
    return {};
  }
  return std::get<CompletionRequest>(parsed);
}

TEST(OpenaiOverrideTest, ItsFieldsTakeThePlaceOfTheBodysAndTheOthersStay) {
  const auto request = overridden(
      "/v1/completions",
      R"({"prompt":"x","max_tokens":900,"temperature":1.5,"stop":["a","b"],"seed":7,"ignore_eos":true})",
      R"({"max_tokens":64,"temperature":0.25,"stop":"c","ignore_eos":false})");
  EXPECT_EQ(request.prompt, "x");
  EXPECT_EQ(request.max_tokens, 64U);
  EXPECT_EQ(request.sampling.temperature, 0.25F);
  EXPECT_EQ(request.stop, std::vector<std::string>{"c"});
  EXPECT_EQ(request.seed, 7U);
  EXPECT_FALSE(request.ignore_eos);
  EXPECT_EQ(overridden("/v1/completions", R"({"prompt":"x","top_p":0})", R"({"top_p":0.5})")
                .sampling.top_p,
            0.5F);
  EXPECT_EQ(overridden("/v1/completions", R"({"prompt":"x","seed":7})", "{}").seed, 7U);
}

TEST(OpenaiOverrideTest, ABoundOnTokensOnlyEverLowersByEitherName) {
  const auto bound = [](const char* body, const char* override) {
    return overridden("/v1/chat/completions",
                      R"({"messages":[{"role":"user","content":"x"}])" + std::string(body) + "}",
                      override)
        .max_tokens;
  };
  EXPECT_EQ(bound("", R"({"max_tokens":64})"), 64U);
  EXPECT_EQ(bound(R"(,"max_tokens":900)", R"({"max_tokens":64})"), 64U);
  EXPECT_EQ(bound(R"(,"max_tokens":9)", R"({"max_tokens":64})"), 9U);
  EXPECT_EQ(bound(R"(,"max_completion_tokens":900)", R"({"max_tokens":64})"), 64U)
      << "the newer name is no way around it";
  EXPECT_EQ(bound(R"(,"max_tokens":900)", R"({"max_completion_tokens":64})"), 64U);
  EXPECT_EQ(bound(R"(,"max_tokens":9,"max_completion_tokens":900)", R"({"max_tokens":64})"), 64U);
  EXPECT_EQ(bound(R"(,"max_completion_tokens":9)", R"({"temperature":0})"), 9U);
}

TEST(OpenaiOverrideTest, AStreamMayBeTakenAwayWithItsOptions) {
  const char* body = R"({"prompt":"x","stream":true,"stream_options":{"include_usage":true}})";
  EXPECT_FALSE(overridden("/v1/completions", body, R"({"stream":false})").stream);
  EXPECT_FALSE(overridden("/v1/completions", body, R"({"stream_options":{}})").include_usage);
}

TEST(OpenaiOverrideTest, TheBodyIsStillReadAndItsFaultsAreTheCallers) {
  for (const char* body : {R"({"prompt":"x","max_tokens":-1})", R"({"max_tokens":5})", "{"}) {
    const Parsed parsed =
        parse_overridden("/v1/completions", body, R"({"max_tokens":64,"prompt":"y"})");
    ASSERT_TRUE(std::holds_alternative<Failure>(parsed)) << body;
    EXPECT_EQ(std::get<Failure>(parsed).message, bad("/v1/completions", body).message);
  }
}

TEST(OpenaiOverrideTest, WhatIsWrongWithItIsSaidToBeTheOperators) {
  const std::string kIn = "In the operator's override, ";
  const std::pair<std::string, std::string> table[] = {
      {R"({"max_token":64})",
       kIn + "'max_token' is no field known here; the nearest that is: max_tokens."},
      {R"({"messages":[]})",
       kIn + "messages is a field of /v1/chat/completions, not of this path."},
      {R"({"":1})", kIn + "'' is no field known here; the nearest that is: n."},
      {R"({"max_tokens":0})",
       kIn + "max_tokens must be an integer between 1 and 2147483647, not 0."},
      {R"({"max_tokens":"64"})", kIn + "max_tokens must be a number, not a string."},
      {R"({"max_tokens":null})", kIn + "max_tokens must not be null."},
      {R"({"n":2})", kIn + "n must be 1: one answer is made a request."},
      {R"({"model":"tiny"})", kIn + "model can only be the one that the job is routed by."},
      {R"({"stream_options":{}})", kIn + "stream_options may only be given with stream: true."},
      {R"({"max_tokens":64)",
       "The operator's override is not valid JSON: no closing bracket of the object at byte 16."},
      {"64", "The operator's override must be a JSON object."},
      {" ", "The operator's override is empty. Send a JSON object."},
  };
  for (const auto& [override, message] : table) {
    const Parsed parsed = parse_overridden("/v1/completions", R"({"prompt":"x"})", override);
    ASSERT_TRUE(std::holds_alternative<Failure>(parsed)) << override;
    EXPECT_EQ(std::get<Failure>(parsed).status, 400);
    EXPECT_EQ(std::get<Failure>(parsed).code, "invalid_request");
    EXPECT_EQ(std::get<Failure>(parsed).message, message);
  }
  EXPECT_EQ(
      overridden("/v1/completions", R"({"model":"large","prompt":"x"})", R"({"model":"small"})")
          .prompt,
      "x");
}

TEST(OpenaiOverrideTest, ALongNameIsCutBetweenCharacters) {
  std::string name;
  for (int i = 0; i < 40; ++i) {
    name += "\xe2\x82\xac";
  }
  const Parsed parsed =
      parse_overridden("/v1/completions", R"({"prompt":"x"})", "{\"" + name + "\":1}");
  EXPECT_EQ(std::get<Failure>(parsed).message,
            "In the operator's override, '" + name.substr(0, 63) +
                "' is no field known here; the nearest that is: allowed_token_ids.");
}

TEST(OpenaiParseTest, WrongMessagesAreNamedByTheirPlace) {
  const Refusal table[] = {
      {R"({})", "messages", "messages is missing."},
      {R"({"prompt":"x"})", "prompt", "prompt is a field of /v1/completions, not of this path."},
      {R"({"messages":"x"})", "messages", "messages must be an array, not a string."},
      {R"({"messages":[]})", "messages", "messages must hold at least one message."},
      {R"({"messages":["x"]})", "messages[0]",
       "messages[0] must be an object with role and content, not a string."},
      {R"({"messages":[{"content":"x"}]})", "messages[0].role", "messages[0].role is missing."},
      {R"({"messages":[{"role":"user","content":"x"},{"role":"tool","content":"x"}]})",
       "messages[1].role", "messages[1].role must be system, developer, user or assistant."},
      {R"({"messages":[{"role":"user"}]})", "messages[0].content",
       "messages[0].content is missing."},
      {R"({"messages":[{"role":"user","content":null}]})", "messages[0].content",
       "messages[0].content is missing."},
      {R"({"messages":[{"role":"user","content":7}]})", "messages[0].content",
       "messages[0].content must be a string, not a number."},
      {R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"}}]}]})",
       "messages[0].content[0]",
       "messages[0].content[0] must be {\"type\":\"text\",\"text\":...}: only text can be read "
       "here."},
      {R"({"messages":[{"role":"user","content":["x"]}]})", "messages[0].content[0]",
       "messages[0].content[0] must be an object with type and text, not a string."},
      {R"({"messages":[{"role":"assistant","tool_calls":[{"id":"1"}]}]})", "messages[0].tool_calls",
       "messages[0].tool_calls is not supported here."},
  };
  for (const Refusal& row : table) {
    const Failure failure = bad("/v1/chat/completions", row.body);
    EXPECT_EQ(failure.param, row.param) << row.body;
    EXPECT_EQ(failure.message, row.message) << row.body;
  }
}

TEST(OpenaiParseTest, MalformedJsonIsToldWithItsPlace) {
  const std::string kOut =
      "a value, comma, colon or bracket that is missing or out of place at byte ";
  const std::pair<std::string, std::string> table[] = {
      {R"({"prompt":"x" "n":1})", kOut + "14."},
      {R"({"prompt":"x",})", kOut + "14."},
      {R"({"prompt" "x"})", kOut + "10."},
      {R"({"prompt":})", kOut + "10."},
      {R"({"a":[1,2}})", kOut + "9."},
      {R"({"a":[1 2],"prompt":"x"})", kOut + "8."},
      {R"({"prompt":"x"}})", "something after the end of the object at byte 14."},
      {R"({"prompt":"x"} 5)", "no closing bracket of the object at byte 16."},
      {R"({"prompt":"x")", "no closing bracket of the object at byte 13."},
      {R"({"prompt":"x)", "a string without its closing quote at byte 10."},
      {R"({"prompt":"\q"})", "a string with a bad escape at byte 10."},
      {R"({"a":"\ud800","prompt":"x"})", "a string with a bad escape at byte 5."},
      {R"({"a":01,"prompt":"x"})", "a malformed number at byte 5."},
      {R"({"prompt":"x","seed":1.})", "a malformed number at byte 21."},
      {R"({"prompt":"x","a":{"b":-}})", "a malformed number at byte 23."},
      {R"({"prompt":"x","stream":tru})", "a word that is not true, false or null at byte 23."},
      {R"({"prompt":nul})", "a word that is not true, false or null at byte 10."},
      {R"({"prompt":"x","a":nulll})", "a word that is not true, false or null at byte 18."},
      {"{\"prompt\":\"a\xff\"}", "bytes that are not UTF-8 at byte 12."},
      {"{\"prompt\":\"a\xe2\x82\"}", "bytes that are not UTF-8 at byte 12."},
      {"{\"prompt\":\"a\nb\"}",
       "a control character inside a string, or a character outside of one at byte 12."},
  };
  for (const auto& [body, message] : table) {
    for (const char* path : {"/v1/completions", "/v1/chat/completions"}) {
      const Failure failure = bad(path, body);
      EXPECT_EQ(failure.status, 400) << body;
      EXPECT_EQ(failure.param, "") << body;
      EXPECT_EQ(failure.message, "The body is not valid JSON: " + message) << body;
    }
  }
}

TEST(OpenaiParseTest, ABodyThatIsNotAnObjectIsRefused) {
  EXPECT_EQ(bad("/v1/completions", "").message, "The body is empty. Send a JSON object.");
  EXPECT_EQ(bad("/v1/completions", " \n").message, "The body is empty. Send a JSON object.");
  for (const char* body : {"[]", "\"x\"", "5", "null", "[{\"prompt\":\"x\"}]"}) {
    EXPECT_EQ(bad("/v1/completions", body).message, "The body must be a JSON object.") << body;
  }
}

TEST(OpenaiParseTest, NestingIsBounded) {
  const auto nested = [](size_t depth) {
    return with("\"user\":" + std::string(depth, '[') + std::string(depth, ']'));
  };
  EXPECT_EQ(good_text(nested(60)).prompt, "x");
  EXPECT_NE(bad("/v1/completions", nested(70)).message.find("nested too deeply"),
            std::string::npos);
  EXPECT_NE(bad("/v1/completions", nested(100'000)).message.find("nested too deeply"),
            std::string::npos);
}

TEST(OpenaiParseTest, EveryPrefixOfAGoodBodyIsRefusedAsMalformed) {
  const std::string body =
      R"({"messages":[{"role":"user","content":[{"type":"text","text":"h\u00e9"}]}],"n":1,"stop":["a"],"metadata":{"y":[null,1.5]}})";
  Parser parser;
  ASSERT_TRUE(
      std::holds_alternative<CompletionRequest>(parser.parse(post("/v1/chat/completions", body))));
  for (size_t size = 0; size < body.size(); ++size) {
    const Parsed parsed = parser.parse(post("/v1/chat/completions", body.substr(0, size)));
    ASSERT_TRUE(std::holds_alternative<Failure>(parsed)) << body.substr(0, size);
    EXPECT_EQ(std::get<Failure>(parsed).param, "") << body.substr(0, size);
  }
}

TEST(OpenaiParseTest, AParserIsGoodForManyBodies) {
  Parser parser;
  const std::string big = with("\"user\":\"" + std::string(3 << 20, 'a') + "\"");
  for (const std::string& body : {with("\"n\":1"), big, std::string("{"), with("\"n\":1"), big}) {
    EXPECT_EQ(
        std::holds_alternative<CompletionRequest>(parser.parse(post("/v1/completions", body))),
        body.size() > 1);
  }
}

TEST(OpenaiParseTest, ThePathAndMethodDecide) {
  EXPECT_EQ(bad("/v1/models", "{}").status, 404);
  EXPECT_EQ(bad("/v1/models", "{}").code, "not_found");
  EXPECT_EQ(good("/prefix/openai/completions", R"({"prompt":"x"})").prompt, "x");
  const Parsed parsed = parse({.method = "GET", .path = "/v1/completions"});
  EXPECT_EQ(std::get<Failure>(parsed).status, 405);
}

}  // namespace
}  // namespace penstock::openai
