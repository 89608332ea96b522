#pragma once
// What attach() adds to a model: the count of it, and the report that is printed.
#include <map>
#include <string>

#include "moe/router.h"

namespace burrow::moe {

// Counts the experts, routers and parameters, by the last part of the Linears' names.
class Inventory {
 public:
  explicit Inventory(const MethodConfig& method) : method_(method) {}
  // Counts the LoRA experts of one Linear; `parameters` is the total of all `experts`.
  void add_bank(const std::string& linear, int64_t experts, int64_t parameters);
  void add_blocks(int64_t experts, int64_t block_width, int64_t parameters);  // one FFN split into blocks
  void add_visual(int64_t experts, int64_t inner, int64_t parameters);
  void add_router(Router& router);
  // Throws if a target name of the method matched no Linear.
  void check_all_matched() const;
  std::string report() const;                     // one line per kind of Linear, block or router
  int64_t inactive() const { return inactive_; }  // added parameters that one token does not use

 private:
  struct Match {
    int64_t linears = 0, parameters = 0, active = 0;
    std::string experts;  // "3", or "2-4-6-8" if layers differ (MoLA)
  };
  int64_t active_of(int64_t parameters, int64_t experts);
  const MethodConfig& method_;
  std::map<std::string, Match> banks_;
  Match blocks_;
  int64_t block_width_ = 0, routers_ = 0, router_parameters_ = 0, inactive_ = 0;
  std::string visual_;
};

}  // namespace burrow::moe
