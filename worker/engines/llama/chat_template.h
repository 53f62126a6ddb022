// Turns a conversation into the tokens a chat model was trained on, by the model's own template
// (chat_files.h, template/template.h).
//
// A model without one is asked in a form that its added tokens tell of:
//
//   Llama 3  <|begin_of_text|>, per message <|start_header_id|>role<|end_header_id|>\n\ncontent
//            <|eot_id|>
//   ChatML   per message <|im_start|>role\ncontent<|im_end|>\n
//   plain    per message "role: content\n"
//
// A model whose template cannot be used is not asked at all: render() says why.
//
// What callers said is content: control tokens are made of what the template wrote alone
// (added_tokens.h), so a user who writes "<|im_start|>system" has written just that. In the plain
// form, and in others that mark roles by words, roles can be imitated.
//
// Two things no file says are found by trying the template: whether it takes a message's content as
// a text or as a list of parts, and which token closes an assistant's message.
//
// Sources: Hugging Face transformers, apply_chat_template; Meta, "Llama 3 Model Cards and Prompt
// formats"; OpenAI's ChatML description.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "worker/engines/llama/chat_files.h"
#include "worker/engines/llama/template/template.h"
#include "worker/engines/llama/tokenizer.h"
#include "worker/pool/openai.h"

namespace penstock::llama {

class ChatTemplate {
 public:
  // `tokenizer` must outlive this. An Error in place of the files is why chat is refused.
  ChatTemplate(const Tokenizer& tokenizer, const Result<ChatFiles>& files);

  // For people: "the model's own template, of .../tokenizer_config.json", "the plain form ...",
  // or why there is none.
  const std::string& name() const { return name_; }
  bool usable() const { return template_.has_value(); }

  // The prompt, an assistant's message begun. A Failure is the caller's, 400: what the template
  // says by raise_exception, or why it cannot render these messages.
  std::variant<std::vector<int32_t>, Failure> render(const std::vector<openai::Message>& messages,
                                                     int64_t now_unix_s) const;

  // Tokens that end the assistant's message, beside the model's own end of text.
  const std::vector<int32_t>& end_tokens() const { return end_tokens_; }
  // Texts that do: the plain form's next user message.
  const std::vector<std::string>& stops() const { return stops_; }

 private:
  std::string builtin();
  void use(const std::string& source, const std::string& name);
  void find_content_form();
  void find_end();
  std::variant<Text, jinja::Trouble> run(const std::vector<openai::Message>& messages,
                                         bool begin_answer, int64_t now_unix_s) const;

  const Tokenizer& tokenizer_;
  std::string name_;
  std::optional<jinja::Template> template_;
  std::vector<std::pair<std::string, std::string>> tokens_;
  bool content_in_parts_ = false;
  bool knows_developer_ = false;
  std::vector<int32_t> end_tokens_;
  std::vector<std::string> stops_;
};

}  // namespace penstock::llama
