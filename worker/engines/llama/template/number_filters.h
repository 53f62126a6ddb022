// Filters that make numbers, for the table in filters.cc.
#pragma once

#include "worker/engines/llama/template/context.h"

namespace penstock::llama::jinja {

Value to_int(Context& context, const Value& subject, const Arguments& arguments);
Value to_float(Context& context, const Value& subject, const Arguments& arguments);
Value absolute(Context& context, const Value& subject, const Arguments& arguments);
Value round(Context& context, const Value& subject, const Arguments& arguments);

}  // namespace penstock::llama::jinja
