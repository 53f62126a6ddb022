#include "worker/queue/config/settings.h"

#include <utility>

namespace penstock::queue {

void Settings::set(const std::string& key, std::string value, bool given) {
  values_[key] = {std::move(value), given};
}

void Settings::rename(const std::string& key, const std::string& name) {
  for (auto it = values_.lower_bound(key); it != values_.end() && it->first.starts_with(key);) {
    auto node = values_.extract(it++);
    node.key().replace(0, key.size(), name);
    values_.insert(std::move(node));
  }
}

void Settings::keep(std::initializer_list<const char*> keys, const Settings& before) {
  for (const char* const key : keys) {
    values_.erase(key);
    if (const auto kept = before.values_.find(key); kept != before.values_.end()) {
      values_.insert(*kept);
    }
  }
}

std::string Settings::text() const {
  std::string text;
  for (const auto& [key, value] : values_) {
    text += key + ": " + value.text + (value.given ? "\n" : "  # not written\n");
  }
  return text;
}

std::vector<std::string> Settings::changes_since(const Settings& before) const {
  std::vector<std::string> changes;
  for (const auto& [key, value] : before.values_) {
    if (value.given && !values_.contains(key)) {
      changes.push_back(key + ": gone (was " + value.text + ")");
    }
  }
  for (const auto& [key, value] : values_) {
    const auto was = before.values_.find(key);
    if (was == before.values_.end() && value.given) {
      changes.push_back(key + ": " + value.text + " (new)");
    } else if (was != before.values_.end() && was->second.text != value.text) {
      changes.push_back(key + ": " + value.text + " (was " + was->second.text + ")");
    }
  }
  return changes;
}

}  // namespace penstock::queue
