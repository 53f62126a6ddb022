#include "worker/engines/llama/chat_template.h"

#include "worker/engines/llama/template/characters.h"

namespace penstock::llama {
namespace {

constexpr const char* kLlama3 =
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{{ '\\n\\n' }}"
    "{% endif %}";
constexpr const char* kChatMl =
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role ~ '\\n' ~ m.content }}<|im_end|>\n"
    "{% endfor %}{{ '<|im_start|>assistant\\n' if add_generation_prompt }}";
constexpr const char* kPlain =
    "{{ bos_token }}{% for m in messages %}{{ m.role ~ ': ' ~ m.content ~ '\\n' }}{% endfor %}"
    "{{ 'assistant:' if add_generation_prompt }}";

// What no template says of itself.
constexpr std::string_view kProbe = "Qx7Zk";

jinja::Value content_of(const openai::Message& message, bool in_parts, jinja::Heap& heap) {
  const jinja::Value text = heap.add(Text(message.content, Hand::kCaller));
  if (!in_parts) {
    return text;
  }
  jinja::Dict part;
  part.entries.emplace_back(heap.add(Text("type", Hand::kTemplate)),
                            heap.add(Text("text", Hand::kTemplate)));
  part.entries.emplace_back(heap.add(Text("text", Hand::kTemplate)), text);
  return heap.add(jinja::List{{heap.add(std::move(part))}});
}

}  // namespace

ChatTemplate::ChatTemplate(const Tokenizer& tokenizer, const Result<ChatFiles>& files)
    : tokenizer_(tokenizer) {
  if (!files) {
    name_ = files.error().message;
    return;
  }
  tokens_ = files->tokens;
  if (files->source.empty()) {
    const std::string source = builtin();
    use(source, name_);
  } else {
    use(files->source, "the model's own template, of " + files->file);
  }
  const auto end = tokenizer_.added(files->token("eos_token"));
  if (end) {
    end_tokens_.push_back(*end);
  }
}

// The form that the tokenizer tells of.
std::string ChatTemplate::builtin() {
  const bool llama3 = tokenizer_.added("<|start_header_id|>") &&
                      tokenizer_.added("<|end_header_id|>") && tokenizer_.added("<|eot_id|>");
  std::string first(tokenizer_.first_content());
  if (first.empty() && llama3 && tokenizer_.added("<|begin_of_text|>")) {
    first = "<|begin_of_text|>";
  }
  std::erase_if(tokens_, [](const auto& token) { return token.first == "bos_token"; });
  tokens_.emplace_back("bos_token", first);
  const char* const why = ", as the model has no chat_template";
  if (llama3) {
    name_ = std::string("the form of Llama 3") + why;
    return kLlama3;
  }
  if (tokenizer_.added("<|im_start|>") && tokenizer_.added("<|im_end|>")) {
    name_ = std::string("the form of ChatML") + why;
    return kChatMl;
  }
  name_ = std::string("the plain form") + why;
  stops_.emplace_back("\nuser:");
  return kPlain;
}

void ChatTemplate::use(const std::string& source, const std::string& name) {
  auto parsed = jinja::Template::parse(source);
  if (!parsed) {
    name_ = name + " cannot be used: " + parsed.error().message;
    return;
  }
  template_ = std::move(*parsed);
  name_ = name;
  // Templates older than the "developer" role call it by its former name.
  knows_developer_ = source.find("developer") != source.npos;
  find_content_form();
  if (template_) {
    find_end();
  }
}

void ChatTemplate::find_content_form() {
  std::string why = "it leaves out what the user says";
  for (const bool in_parts : {false, true}) {
    content_in_parts_ = in_parts;
    const auto rendered = run({{"user", std::string(kProbe)}}, true, 0);
    if (const auto* trouble = std::get_if<jinja::Trouble>(&rendered)) {
      if (trouble->kind == jinja::Trouble::Kind::kRaised) {
        content_in_parts_ = false;  // it wants more than a probe has; what it says is for callers
        return;
      }
      why = "line " + std::to_string(trouble->line) + ": " + trouble->message;
    } else if (std::get<Text>(rendered).bytes().find(kProbe) != std::string_view::npos) {
      return;
    }
  }
  template_.reset();
  name_ += " cannot be used: " + why;
}

void ChatTemplate::find_end() {
  const auto rendered = run({{"user", "?"}, {"assistant", std::string(kProbe)}}, false, 0);
  const Text* text = std::get_if<Text>(&rendered);
  const size_t at = text == nullptr ? std::string_view::npos : text->bytes().rfind(kProbe);
  if (at == std::string_view::npos) {
    return;
  }
  size_t from = at + kProbe.size();
  from += jinja::leading_space(text->bytes().substr(from));
  const auto ids = tokenizer_.encode(text->part(from, text->size() - from));
  if (!ids.empty() && tokenizer_.is_control(ids[0])) {
    end_tokens_.push_back(ids[0]);
  }
}

std::variant<Text, jinja::Trouble> ChatTemplate::run(const std::vector<openai::Message>& messages,
                                                     bool begin_answer, int64_t now_unix_s) const {
  const auto given = [&](jinja::Heap& heap) {
    const jinja::Value role = heap.add(Text("role", Hand::kTemplate));
    const jinja::Value content = heap.add(Text("content", Hand::kTemplate));
    jinja::List list;
    for (const openai::Message& message : messages) {
      // A role is one of four words, whoever chose it.
      const bool former = message.role == "developer" && !knows_developer_;
      jinja::Dict dict;
      dict.entries.emplace_back(role,
                                heap.add(Text(former ? "system" : message.role, Hand::kTemplate)));
      dict.entries.emplace_back(content, content_of(message, content_in_parts_, heap));
      list.items.push_back(heap.add(std::move(dict)));
    }
    std::vector<std::pair<std::string_view, jinja::Value>> names = {
        {"messages", heap.add(std::move(list))},
        {"add_generation_prompt", begin_answer},
        {"tools", jinja::None{}},
        {"documents", jinja::None{}},
    };
    for (const auto& [name, token] : tokens_) {
      names.emplace_back(name, heap.add(Text(token, Hand::kTemplate)));
    }
    return names;
  };
  return template_->render(given, now_unix_s);
}

std::variant<std::vector<int32_t>, Failure> ChatTemplate::render(
    const std::vector<openai::Message>& messages, int64_t now_unix_s) const {
  const auto failure = [](const std::string& message, const char* param) {
    return Failure{400, "invalid_request", message, param, false};
  };
  if (!usable()) {
    return failure("This model cannot be asked in messages here: " + name_ +
                       ". Use /v1/completions, with the prompt as the model wants it.",
                   "");
  }
  const auto rendered = run(messages, true, now_unix_s);
  if (const auto* trouble = std::get_if<jinja::Trouble>(&rendered)) {
    return failure(trouble->kind == jinja::Trouble::Kind::kRaised
                       ? trouble->message
                       : "The model's chat template cannot render these messages: line " +
                             std::to_string(trouble->line) + ": " + trouble->message + ".",
                   "messages");
  }
  return tokenizer_.encode(std::get<Text>(rendered));
}

}  // namespace penstock::llama
