"""TEMPORARY stand-in."""
import h5py, numpy as np
def write_view_of(delivery, view):
    if not view.firsts: return
    first = next(f for f in delivery.home.values() if f.images)
    with h5py.File(first.path) as f:
        ds=f["entry/data/data"]; shape=ds.shape[1:]; dtype=ds.dtype
    n=len(view.firsts)*view.images
    layout=h5py.VirtualLayout((n,*shape),dtype)
    per=delivery.images_per_file
    k=0
    for a in view.firsts:
        for i in range(a,a+view.images):
            name = delivery.master if per==0 else delivery.data_file(i//per+1)
            have = delivery.home[name].images
            src=h5py.VirtualSource(name,"entry/data/data",shape=(have,*shape))
            layout[k]=src[i%per if per else i]; k+=1
    with h5py.File(delivery.directory/view.file,"w-",libver=("v110","v110")) as f:
        f.create_virtual_dataset("entry/data/data",layout,fillvalue=np.iinfo(dtype).max)
