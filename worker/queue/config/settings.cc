#include "worker/queue/config/settings.h"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace penstock::queue {

void Settings::set(const std::string& key, std::string value, bool given) {
  std::replace_if(
      value.begin(), value.end(), [](char c) { return static_cast<uint8_t>(c) < ' '; }, ' ');
  Value& old = values_[key];
  std::string source = old.text == value ? std::move(old.source) : std::string();
  old = {std::move(value), given, {}, std::move(source)};
}

void Settings::note_hidden(const std::string& key, std::string value) {
  if (const auto found = values_.find(key); found != values_.end()) {
    found->second.hidden = std::move(value);
  }
}

void Settings::note_source(const std::string& key, std::string text) {
  if (const auto found = values_.find(key); found != values_.end()) {
    found->second.source = std::move(text);
  }
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

void Settings::keep_below(std::string_view prefix, const Settings& before) {
  std::erase_if(values_, [&](const auto& value) { return value.first.starts_with(prefix); });
  for (auto it = before.values_.lower_bound(std::string(prefix));
       it != before.values_.end() && it->first.starts_with(prefix); ++it) {
    values_.insert(*it);
  }
}

std::string Settings::text() const {
  std::string text;
  for (const auto& [key, value] : values_) {
    text += key + ": " + value.text;
    text += !value.given ? "  # not written" : value.source.empty() ? "" : "  # " + value.source;
    text += "\n";
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
    } else if (was != before.values_.end() && was->second.hidden != value.hidden) {
      changes.push_back(key + ": changed, in what is not shown");
    }
  }
  return changes;
}

}  // namespace penstock::queue
