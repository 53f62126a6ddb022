#include "shared/http/http_date.h"

#include <array>
#include <chrono>

namespace penstock::http {
namespace {

constexpr std::array<std::string_view, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
constexpr std::array<std::string_view, 7> kDays = {"Monday", "Tuesday",  "Wednesday", "Thursday",
                                                   "Friday", "Saturday", "Sunday"};

// Takes what it expects off the front; once something else was there, good() is false.
class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}
  bool good() const noexcept { return good_; }
  bool at_end() const noexcept { return good_ && rest_.empty(); }

  Reader& literal(std::string_view text) noexcept {
    good_ = good_ && rest_.starts_with(text);
    rest_.remove_prefix(good_ ? text.size() : 0);
    return *this;
  }
  Reader& digits(size_t count, unsigned& number) noexcept {
    number = 0;
    for (size_t i = 0; i < count; ++i) {
      good_ = good_ && i < rest_.size() && rest_[i] >= '0' && rest_[i] <= '9';
      number = good_ ? number * 10 + static_cast<unsigned>(rest_[i] - '0') : 0;
    }
    rest_.remove_prefix(good_ ? count : 0);
    return *this;
  }
  Reader& month(unsigned& number) noexcept {
    number = 0;
    for (unsigned i = 0; i < kMonths.size(); ++i) {
      number = rest_.starts_with(kMonths[i]) ? i + 1 : number;
    }
    good_ = good_ && number != 0;
    rest_.remove_prefix(good_ ? 3 : 0);
    return *this;
  }
  // True: it is the whole name of a day; else its first three letters are.
  bool day_name() noexcept {
    for (const std::string_view day : kDays) {
      if (rest_.starts_with(day)) {
        rest_.remove_prefix(day.size());
        return true;
      }
    }
    for (const std::string_view day : kDays) {
      if (rest_.starts_with(day.substr(0, 3))) {
        rest_.remove_prefix(3);
        return false;
      }
    }
    good_ = false;
    return false;
  }
  bool next_is(char c) const noexcept { return !rest_.empty() && rest_.front() == c; }

 private:
  std::string_view rest_;
  bool good_ = true;
};

struct Moment {
  unsigned year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0;
};

std::optional<int64_t> seconds_of(const Moment& at) noexcept {
  const std::chrono::year_month_day date{std::chrono::year(static_cast<int>(at.year)),
                                         std::chrono::month(at.month), std::chrono::day(at.day)};
  if (!date.ok() || at.hour > 23 || at.minute > 59 || at.second > 60) {
    return std::nullopt;
  }
  const int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  return days * 86'400 + at.hour * 3600 + at.minute * 60 + at.second;
}

}  // namespace

std::optional<int64_t> parse_http_date(std::string_view text) noexcept {
  Reader reader(text);
  Moment at;
  const auto time = [&] {
    reader.digits(2, at.hour).literal(":").digits(2, at.minute).literal(":").digits(2, at.second);
  };
  if (reader.day_name()) {
    reader.literal(", ").digits(2, at.day).literal("-").month(at.month).literal("-");
    reader.digits(2, at.year).literal(" ");
    at.year += at.year < 70 ? 2000 : 1900;
    time();
    reader.literal(" GMT");
  } else if (reader.next_is(',')) {
    reader.literal(", ").digits(2, at.day).literal(" ").month(at.month).literal(" ");
    reader.digits(4, at.year).literal(" ");
    time();
    reader.literal(" GMT");
  } else {
    reader.literal(" ").month(at.month).literal(" ");
    reader.next_is(' ') ? reader.literal(" ").digits(1, at.day) : reader.digits(2, at.day);
    reader.literal(" ");
    time();
    reader.literal(" ").digits(4, at.year);
  }
  return reader.at_end() ? seconds_of(at) : std::nullopt;
}

}  // namespace penstock::http
