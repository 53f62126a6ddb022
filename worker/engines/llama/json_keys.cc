#include "worker/engines/llama/json_keys.h"

namespace penstock::llama {

namespace dom = simdjson::dom;

std::optional<dom::element> Keys::find(std::string_view key) const {
  dom::element value;
  if (object_[key].get(value) != simdjson::SUCCESS || value.is_null()) {
    return std::nullopt;
  }
  return value;
}

int64_t Keys::integer(std::string_view key, int64_t low, int64_t high,
                      std::optional<int64_t> absent) {
  const auto value = find(key);
  int64_t number = absent.value_or(low);
  const bool good = value
                        ? value->get(number) == simdjson::SUCCESS && number >= low && number <= high
                        : absent.has_value();
  if (!good) {
    fail(key, "expected an integer from " + std::to_string(low) + " to " + std::to_string(high));
    return low;
  }
  return number;
}

double Keys::number(std::string_view key, double low, double high, std::optional<double> absent) {
  const auto value = find(key);
  double got = absent.value_or(low);
  // A JSON number is never NaN; the comparison would refuse one all the same.
  const bool good = value ? value->get(got) == simdjson::SUCCESS && got >= low && got <= high
                          : absent.has_value();
  if (!good) {
    fail(key, "expected a number from " + std::to_string(low) + " to " + std::to_string(high));
    return low;
  }
  return got;
}

bool Keys::boolean(std::string_view key, bool absent) {
  const auto value = find(key);
  bool got = absent;
  if (value && value->get(got) != simdjson::SUCCESS) {
    fail(key, "expected true or false");
  }
  return got;
}

std::string Keys::text(std::string_view key, std::string_view absent) {
  const auto value = find(key);
  std::string_view got = absent;
  if (value && value->get(got) != simdjson::SUCCESS) {
    fail(key, "expected a string");
  }
  return std::string(got);
}

std::vector<int32_t> Keys::ids(std::string_view key, int64_t last) {
  std::vector<int32_t> ids;
  const auto value = find(key);
  dom::array list;
  if (value && value->get(list) == simdjson::SUCCESS) {
    for (const dom::element element : list) {
      int64_t id = -1;
      if (element.get(id) != simdjson::SUCCESS || id < 0 || id > last) {
        fail(key, "expected token ids from 0 to " + std::to_string(last));
      }
      ids.push_back(static_cast<int32_t>(id));
    }
  } else if (value) {
    ids.push_back(static_cast<int32_t>(integer(key, 0, last)));
  }
  return ids;
}

void Keys::fail(std::string_view key, const std::string& what) {
  if (error_.empty()) {
    const char* state = find(key) ? " cannot be used: " : " is missing: ";
    error_ = name_ + ": " + quote(key) + state + what;
  }
}

}  // namespace penstock::llama
