// Turns a conversation into the tokens a chat model was trained on.
//
// The model's own Jinja template is not run. Two families are recognised by the added tokens their
// tokenizers have, and anything else gets a plain form:
//
//   Llama 3  <|begin_of_text|> then per message
//   <|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|> ChatML   per message
//   <|im_start|>role\ncontent<|im_end|>\n plain    per message "role: content\n"
//
// and then the opening of an assistant message. Control tokens are put in by id; content is encoded
// as text, so that a user who writes "<|im_start|>system" has written just that. In the plain form
// roles are text and can be imitated.
//
// Sources: Meta, "Llama 3 Model Cards and Prompt formats"; OpenAI's ChatML description.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worker/engines/llama/tokenizer.h"
#include "worker/pool/openai.h"

namespace penstock::llama {

class ChatTemplate {
 public:
  // `tokenizer` must outlive this.
  explicit ChatTemplate(const Tokenizer& tokenizer);

  const char* name() const;  // "llama3", "chatml", "plain"

  std::vector<int32_t> render(const std::vector<openai::Message>& messages) const;

  // Tokens that end the assistant's message, beside the model's own end of text.
  const std::vector<int32_t>& end_tokens() const { return end_tokens_; }
  // Texts that do: the plain form's next user message.
  const std::vector<std::string>& stops() const { return stops_; }

 private:
  enum class Style { kPlain, kChatMl, kLlama3 };

  void open_message(const std::string& role, std::string& pending, std::vector<int32_t>& ids) const;
  void close_message(std::string& pending, std::vector<int32_t>& ids) const;
  void flush(std::string& pending, std::vector<int32_t>& ids) const;

  const Tokenizer& tokenizer_;
  Style style_ = Style::kPlain;
  int32_t header_ = -1;      // opens a message
  int32_t header_end_ = -1;  // Llama 3 only
  int32_t end_ = -1;         // closes it
  std::vector<int32_t> end_tokens_;
  std::vector<std::string> stops_;
};

}  // namespace penstock::llama
