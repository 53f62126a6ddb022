// Any text as a formula, any values: what is accepted keeps within its limits, has a finite value
// or none, and means the same in parentheses.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <span>
#include <string>
#include <string_view>

#include "shared/limit/formula.h"

using penstock::limit::Formula;

namespace {

constexpr double kValues[] = {NAN, 0, 1, -1, 0.5, 1e308, INFINITY, 1048576};

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

void expect_promises(const Formula& formula, std::string_view text,
                     std::span<const double> values) {
  const double value = formula.evaluate(values);
  if (std::isinf(value) || formula.names().size() > Formula::kMaxNames) {
    std::abort();
  }
  for (const std::string_view name : formula.names()) {
    if (name.empty() || name.data() < text.data() ||
        name.data() + name.size() > text.data() + text.size()) {
      std::abort();
    }
  }
  const std::string wrapped = "( " + std::string(text) + " )";
  const auto again = Formula::parse(wrapped);
  if (again ? !same(again->evaluate(values), value)
            : again.error().message.find("in each other") == std::string::npos) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < Formula::kMaxNames) {
    return 0;
  }
  double values[Formula::kMaxNames];
  for (size_t i = 0; i < Formula::kMaxNames; ++i) {
    values[i] = kValues[data[i] % std::size(kValues)];
  }
  const std::string_view text(reinterpret_cast<const char*>(data) + Formula::kMaxNames,
                              size - Formula::kMaxNames);
  const auto formula = Formula::parse(text);
  if (formula) {
    expect_promises(*formula, text, values);
  } else if (!formula.error().message.starts_with("at character ")) {
    std::abort();
  }
  return 0;
}
