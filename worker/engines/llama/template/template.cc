#include "worker/engines/llama/template/template.h"

#include "shared/base/utf8.h"
#include "worker/engines/llama/template/evaluation.h"
#include "worker/engines/llama/template/parser.h"

namespace penstock::llama::jinja {

struct Template::Parsed {
  Heap constants;
  std::vector<Statement> statements;
};

Template::Template(std::unique_ptr<Parsed> parsed) : parsed_(std::move(parsed)) {}
Template::~Template() = default;
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;

Result<Template> Template::parse(std::string_view source) {
  if (utf8_first_invalid(source) != std::string_view::npos) {
    return Error{"it is not UTF-8"};
  }
  auto parsed = std::make_unique<Parsed>();
  auto statements = jinja::parse(source, parsed->constants);
  if (!statements) {
    return statements.error();
  }
  parsed->statements = std::move(*statements);
  return Template(std::move(parsed));
}

std::variant<Text, Trouble> Template::render(const Given& given, int64_t now_unix_s,
                                             const Limits& limits) const {
  Context context(limits, now_unix_s);
  Evaluation evaluation(context);
  for (const auto& [name, value] : given(context.heap())) {
    evaluation.globals().set(name, value);
  }
  Text out;
  evaluation.run(parsed_->statements, out);
  if (context.failed()) {
    return context.trouble();
  }
  return out;
}

}  // namespace penstock::llama::jinja
