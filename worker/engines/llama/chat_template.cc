#include "worker/engines/llama/chat_template.h"

namespace penstock::llama {
namespace {

// Llama 3's template trims what is said.
std::string trimmed(const std::string& text) {
  constexpr const char* kSpace = " \t\r\n\f\v";
  const size_t first = text.find_first_not_of(kSpace);
  return first == text.npos ? "" : text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

}  // namespace

ChatTemplate::ChatTemplate(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
  const auto header = tokenizer.added("<|start_header_id|>");
  const auto header_end = tokenizer.added("<|end_header_id|>");
  const auto turn_end = tokenizer.added("<|eot_id|>");
  const auto chatml = tokenizer.added("<|im_start|>");
  const auto chatml_end = tokenizer.added("<|im_end|>");
  if (header && header_end && turn_end) {
    style_ = Style::kLlama3;
    header_ = *header;
    header_end_ = *header_end;
    end_ = *turn_end;
  } else if (chatml && chatml_end) {
    style_ = Style::kChatMl;
    header_ = *chatml;
    end_ = *chatml_end;
  } else {
    stops_.emplace_back("\nuser:");
    return;
  }
  end_tokens_.push_back(end_);
}

const char* ChatTemplate::name() const {
  switch (style_) {
    case Style::kLlama3:
      return "llama3";
    case Style::kChatMl:
      return "chatml";
    case Style::kPlain:
      break;
  }
  return "plain";
}

std::vector<int32_t> ChatTemplate::render(const std::vector<openai::Message>& messages) const {
  std::vector<int32_t> ids;
  auto first = tokenizer_.first();
  if (!first && style_ == Style::kLlama3) {
    first = tokenizer_.added("<|begin_of_text|>");
  }
  if (first) {
    ids.push_back(*first);
  }
  std::string pending;  // text since the last control token: encoded whole, as the model saw it
  for (const openai::Message& message : messages) {
    // Templates older than the "developer" role call it by its former name.
    open_message(message.role == "developer" ? "system" : message.role, pending, ids);
    if (style_ == Style::kPlain) {
      pending += ' ';
    }
    pending += style_ == Style::kLlama3 ? trimmed(message.content) : message.content;
    close_message(pending, ids);
  }
  open_message("assistant", pending, ids);
  flush(pending, ids);
  return ids;
}

void ChatTemplate::open_message(const std::string& role, std::string& pending,
                                std::vector<int32_t>& ids) const {
  if (style_ == Style::kPlain) {
    pending += role;
    pending += ':';
    return;
  }
  flush(pending, ids);
  ids.push_back(header_);
  pending = role;
  if (style_ == Style::kLlama3) {
    flush(pending, ids);
    ids.push_back(header_end_);
  }
  pending += style_ == Style::kLlama3 ? "\n\n" : "\n";
}

void ChatTemplate::close_message(std::string& pending, std::vector<int32_t>& ids) const {
  if (style_ != Style::kPlain) {
    flush(pending, ids);
    ids.push_back(end_);
  }
  if (style_ != Style::kLlama3) {
    pending += "\n";
  }
}

void ChatTemplate::flush(std::string& pending, std::vector<int32_t>& ids) const {
  const std::vector<int32_t> more = tokenizer_.encode(pending);
  ids.insert(ids.end(), more.begin(), more.end());
  pending.clear();
}

}  // namespace penstock::llama
