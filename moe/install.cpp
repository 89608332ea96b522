#include "moe/install.h"

namespace burrow::moe {

Router Install::router(const std::string& site, const Tensor& weight, int64_t of_experts) {
  const int64_t width = weight.dim(1);
  const DType dtype = trained_dtype(weight);
  Router router(site + ".router", layer, width, of_experts, method, dtype, seed);
  if (method.router.selection == Selection::sparsegen) {
    std::shared_ptr<LambdaNetwork>& shared = lambdas[width];
    router.owns_lambda = !shared;
    if (!shared) shared = std::make_shared<LambdaNetwork>(width, method.router.lambda_width, dtype, seed);
    router.lambda = shared;
  }
  inventory.add_router(router);
  return router;
}

bool is_trained(const MethodConfig& method, nn::Role role) {
  switch (role) {
    case nn::Role::tower:
      return method.full;
    case nn::Role::projector:
      return method.full || method.train_projector;
    case nn::Role::base:
      return method.full || method.train_decoder;
    case nn::Role::block:
      return method.full || method.shard.train == BlockTraining::full;
    case nn::Role::adapter_a:
    case nn::Role::adapter_b:
    case nn::Role::router:
    case nn::Role::visual:
      return true;
    case nn::Role::teacher:
      return false;
  }
  return false;
}

DType trained_dtype(const Tensor& weight) { return weight.dtype() == DType::f64 ? DType::f64 : DType::f32; }

std::string last_part(const std::string& name) { return name.substr(name.rfind('.') + 1); }

Var initial(const std::string& name, const Shape& shape, double bound, uint64_t seed, DType dtype,
            bool planned) {
  if (planned) return Var(nn::shapes_only(dtype)->take(name, shape, nn::Init::linear));
  return Var(bound == 0 ? Tensor::zeros(shape, dtype) : uniform_tensor(name, shape, bound, seed, dtype));
}

}  // namespace burrow::moe
