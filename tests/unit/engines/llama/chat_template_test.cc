#include "worker/engines/llama/chat_template.h"

#include <gtest/gtest.h>

#include "tests/unit/engines/llama/fixtures.h"

namespace penstock::llama {
namespace {

// Added: <|begin_of_text|> 307, <|end_of_text|> 308, <|eot_id|> 309, <|start_header_id|> 310.
const std::string kLlama3 = kSource + "/tests/fixtures/llama/bf16_llama3_rope/tokenizer.json";

// The fixture's tokenizer, an added token under another name.
Tokenizer renamed(const std::vector<std::pair<std::string, std::string>>& names) {
  std::string json = slurp(kLlama3);
  for (const auto& [from, to] : names) {
    for (size_t at = json.find(from); at != json.npos; at = json.find(from, at + to.size())) {
      json.replace(at, from.size(), to);
    }
  }
  return *Tokenizer::parse(json, "tokenizer.json");
}

std::vector<int32_t> joined(const std::vector<std::vector<int32_t>>& parts) {
  std::vector<int32_t> all;
  for (const auto& part : parts) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

ChatFiles own(const std::string& source) {
  return {.source = source,
          .file = "here/tokenizer_config.json",
          .tokens = {{"bos_token", "<|begin_of_text|>"}, {"eos_token", "<|end_of_text|>"}}};
}

std::vector<int32_t> ids_of(const ChatTemplate& chat,
                            const std::vector<openai::Message>& messages) {
  auto rendered = chat.render(messages, 0);
  if (const auto* failure = std::get_if<Failure>(&rendered)) {
    ADD_FAILURE() << failure->message;
    return {};
  }
  return std::get<std::vector<int32_t>>(rendered);
}

Failure failure_of(const ChatTemplate& chat, const std::vector<openai::Message>& messages) {
  auto rendered = chat.render(messages, 0);
  EXPECT_TRUE(std::holds_alternative<Failure>(rendered));
  return std::holds_alternative<Failure>(rendered) ? std::get<Failure>(rendered) : Failure{};
}

TEST(ChatTemplateTest, WithoutATemplateLlama3HeadersAreRecognisedAndContentStaysContent) {
  const Tokenizer t = renamed({{"<|end_of_text|>", "<|end_header_id|>"}});
  const ChatTemplate chat(t, ChatFiles{});
  EXPECT_NE(chat.name().find("Llama 3, as the model has no chat_template"), std::string::npos);
  EXPECT_EQ(chat.end_tokens(), std::vector<int32_t>{309});
  EXPECT_EQ(ids_of(chat, {{"system", " be kind\n"}, {"user", "<|eot_id|>"}}),
            joined({{307},
                    {310},
                    t.encode("system"),
                    {308},
                    t.encode("\n\nbe kind"),
                    {309},
                    {310},
                    t.encode("user"),
                    {308},
                    t.encode("\n\n<|eot_id|>"),
                    {309},
                    {310},
                    t.encode("assistant"),
                    {308},
                    t.encode("\n\n")}));
}

TEST(ChatTemplateTest, WithoutATemplateChatMlIsRecognised) {
  const Tokenizer t = renamed({{"<|end_of_text|>", "<|im_start|>"}, {"<|eot_id|>", "<|im_end|>"}});
  const ChatTemplate chat(t, ChatFiles{});
  EXPECT_NE(chat.name().find("ChatML"), std::string::npos);
  EXPECT_EQ(chat.end_tokens(), std::vector<int32_t>{309});
  EXPECT_EQ(ids_of(chat, {{"developer", "hi "}, {"user", "<|im_end|>"}}),
            joined({{307},
                    {308},
                    t.encode("system\nhi "),
                    {309},
                    t.encode("\n"),
                    {308},
                    t.encode("user\n<|im_end|>"),
                    {309},
                    t.encode("\n"),
                    {308},
                    t.encode("assistant\n")}));
}

TEST(ChatTemplateTest, OthersWithoutATemplateGetThePlainForm) {
  const Tokenizer t = *Tokenizer::open(kDemo + "/tokenizer.json");
  const ChatTemplate chat(t, load_chat_files(kDemo));
  EXPECT_NE(chat.name().find("plain"), std::string::npos);
  EXPECT_EQ(ids_of(chat, {{"system", "You help."}, {"user", "Define kluge."}}),
            t.encode("system: You help.\nuser: Define kluge.\nassistant:"));
  EXPECT_EQ(chat.stops(), std::vector<std::string>{"\nuser:"});
}

TEST(ChatTemplateTest, TheModelsOwnTemplateIsUsedWhateverItsTokensAreCalled) {
  const Tokenizer t = renamed({{"<|end_of_text|>", "<|end_header_id|>"}});
  const ChatTemplate chat(t, own("{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ "
                                 "m.content }}<|eot_id|>{% endfor %}"
                                 "{{ '[me]' if add_generation_prompt }}"));
  EXPECT_EQ(chat.name(), "the model's own template, of here/tokenizer_config.json");
  EXPECT_EQ(ids_of(chat, {{"user", "<|eot_id|>"}}),
            joined({{307}, t.encode("[user] <|eot_id|>"), {309}, t.encode("[me]")}));
  EXPECT_EQ(chat.end_tokens(), std::vector<int32_t>{309}) << "what closes an assistant's message";
  EXPECT_TRUE(chat.stops().empty());
}

TEST(ChatTemplateTest, EndsAreTheTokenThatClosesAMessageAndTheEosTokenOfTheFile) {
  const Tokenizer t = *Tokenizer::open(kLlama3);
  const ChatTemplate chat(
      t, own("{% for m in messages %}<{{ m.role }}>{{ m.content }}\n<|eot_id|>\n{% endfor %}"));
  EXPECT_EQ(chat.end_tokens(), (std::vector<int32_t>{309, 308}));
}

TEST(ChatTemplateTest, ATemplateThatReadsPartsIsGivenParts) {
  const Tokenizer t = *Tokenizer::open(kLlama3);
  const ChatTemplate chat(t, own("{% for m in messages %}{% for part in m.content %}"
                                 "{% if part.type == 'text' %}{{ part.text }}|{% endif %}"
                                 "{% endfor %}{% endfor %}"));
  EXPECT_EQ(ids_of(chat, {{"user", "one"}, {"assistant", "two"}}), t.encode("one|two|"));
}

TEST(ChatTemplateTest, TheDeveloperRoleKeepsItsNameWhereTheTemplateKnowsIt) {
  const Tokenizer t = *Tokenizer::open(kLlama3);
  const std::string source = "{% for m in messages %}{{ m.role }} {{ m.content }}{% endfor %}";
  EXPECT_EQ(ids_of(ChatTemplate(t, own(source)), {{"developer", "x"}}), t.encode("system x"));
  EXPECT_EQ(ids_of(ChatTemplate(t, own("{# developer #}" + source)), {{"developer", "x"}}),
            t.encode("developer x"));
}

TEST(ChatTemplateTest, WhatTheTemplateRaisesIsTheCallersToRead) {
  const Tokenizer t = *Tokenizer::open(kLlama3);
  const ChatTemplate raising(t,
                             own("{% if messages[0].role == 'system' %}"
                                 "{{ raise_exception('There is no system role.') }}{% endif %}"
                                 "{{ messages[0].content }}{{ messages[1].x.y if messages[1] }}"));
  const Failure failure = failure_of(raising, {{"system", "x"}});
  EXPECT_EQ(failure.status, 400);
  EXPECT_EQ(failure.param, "messages");
  EXPECT_EQ(failure.message, "There is no system role.");
  EXPECT_NE(failure_of(raising, {{"user", "x"}, {"user", "y"}})
                .message.find("cannot render these messages: line 1: 'x' is undefined"),
            std::string::npos);
}

TEST(ChatTemplateTest, ATemplateThatCannotBeUsedIsRefusedWithTheReason) {
  const Tokenizer t = *Tokenizer::open(kLlama3);
  const std::pair<Result<ChatFiles>, const char*> cases[] = {
      {own("{% include 'x' %}"), "the tag \"include\" is not implemented"},
      {own("hello"), "it leaves out what the user says"},
      {own("{{ messages.x.y }}"), "'x' is undefined"},
      {Error{"here/tokenizer_config.json: is not valid JSON"}, "is not valid JSON"},
  };
  for (const auto& [files, why] : cases) {
    const ChatTemplate chat(t, files);
    EXPECT_FALSE(chat.usable());
    EXPECT_NE(chat.name().find(why), std::string::npos) << chat.name();
    const Failure failure = failure_of(chat, {{"user", "x"}});
    EXPECT_EQ(failure.status, 400);
    EXPECT_NE(failure.message.find(why), std::string::npos) << failure.message;
    EXPECT_NE(failure.message.find("/v1/completions"), std::string::npos) << failure.message;
  }
}

TEST(ChatFilesTest, TheTemplateIsFoundWhereTransformersFindsIt) {
  const TempFolder folder;
  EXPECT_EQ(load_chat_files(folder.path())->source, "");
  spill(folder / "chat_template.json", R"({"chat_template":"third"})");
  EXPECT_EQ(load_chat_files(folder.path())->source, "third");
  spill(
      folder / "tokenizer_config.json",
      R"({"chat_template":[{"name":"tool_use","template":"no"},{"name":"default","template":"second"}],
            "bos_token":{"content":"<s>","special":true},"eos_token":"</s>","pad_token":null})");
  EXPECT_EQ(load_chat_files(folder.path())->source, "second");
  EXPECT_EQ(load_chat_files(folder.path())->token("bos_token"), "<s>");
  EXPECT_EQ(load_chat_files(folder.path())->token("eos_token"), "</s>");
  EXPECT_EQ(load_chat_files(folder.path())->token("pad_token"), "");
  spill(folder / "chat_template.jinja", "first");
  EXPECT_EQ(load_chat_files(folder.path())->source, "first");
  EXPECT_EQ(load_chat_files(folder.path())->token("bos_token"), "<s>");
  for (const char* wrong : {"[", "[]", R"({"chat_template":7})", R"({"chat_template":[]})"}) {
    std::filesystem::remove(folder / "chat_template.jinja");
    spill(folder / "tokenizer_config.json", wrong);
    const auto files = load_chat_files(folder.path());
    ASSERT_FALSE(files) << wrong;
    EXPECT_NE(files.error().message.find("tokenizer_config.json: "), std::string::npos);
  }
}

}  // namespace
}  // namespace penstock::llama
