// What Redis keeps of a job beside its place: its JobRecord as far as other hosts need it, and
// behind that the SUBMIT frame; or, once the job has ended, what its engine answered.
//
// It is a frame of the wire (shared/wire) and the bytes behind it, so what a later version adds to
// the record is passed over by an earlier one.
#pragma once

#include <string>
#include <string_view>

#include "worker/queue/shared_order/shared_order.h"
#include "worker/queue/store/job_record.h"

namespace penstock::queue {

// That much of it is enough to decode the record.
constexpr size_t kMostRecordBytes = 32U << 10;

// How long the end of a brief one is kept: its home asks for it once it hears of it.
constexpr int64_t kBriefMs = 60'000;
inline int64_t keep_ms(const JobRecord& record) { return record.brief ? kBriefMs : 0; }

// 32 digits, as owners are shown.
std::string hex(const limit::Hash128& hash);

std::string encode(const JobRecord& record, std::string_view rest);
// False: it is no such thing, or not whole. `rest` points into `bytes`.
bool decode(std::string_view bytes, JobRecord& record, std::string_view& rest);

// What is known of a job, by its record and by the order. False: nothing is, or it is not
// understood. `answer`: of its engine, where it has ended with one.
bool decode(const SharedOrder::Known& known, JobRecord& record, std::string_view& answer);

}  // namespace penstock::queue
